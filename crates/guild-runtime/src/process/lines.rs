//! Reads lines of a bounded length from a pipe.
//!
//! What is longer than the bound is an error as soon as the bound is passed: a line of any length
//! takes no more memory than the bound.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// A pipe that is read line by line.
pub(super) struct Lines<R> {
    pipe: R,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were searched for a line end.
    searched: usize,
    bytes_max: usize,
}

/// Why there is no further line.
#[derive(Debug)]
pub(super) enum LineError {
    /// It is longer than allowed.
    TooLong,
    /// The pipe cannot be read.
    Failed(io::Error),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(pipe: R, bytes_max: usize) -> Self {
        Self { pipe, buffer: Vec::new(), searched: 0, bytes_max }
    }

    /// Returns the next line without its end; none at the end of the pipe. A last line that was
    /// not ended is no line: its writer died over it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let rest = self.buffer.split_off(self.searched + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                return if line.len() > self.bytes_max {
                    Err(LineError::TooLong)
                } else {
                    Ok(Some(line))
                };
            }
            self.searched = self.buffer.len();
            if self.searched > self.bytes_max {
                return Err(LineError::TooLong);
            }
            self.buffer.reserve(READ_BYTES);
            match self.pipe.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) => return Err(LineError::Failed(error)),
            }
        }
    }

    /// Reads to the end of the pipe and forgets what it reads.
    pub(super) async fn discard(&mut self) {
        loop {
            self.buffer.clear();
            self.searched = 0;
            self.buffer.reserve(READ_BYTES);
            match self.pipe.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}
