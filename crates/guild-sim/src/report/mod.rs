//! Draws a simulated run as one self-contained page.
