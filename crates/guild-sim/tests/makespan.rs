//! Bounds of the makespan on real workflows, and how close the scheduler comes to proved optima.
//!
//! The inputs are beside the project; where they are absent these tests say so and check nothing.

mod common;

use std::time::Duration;

use guild_core::event::Outcome;
use guild_core::planner::ReadyOrder;
use guild_sim::Simulation;
use guild_sim::workload::read_workflow;

use common::{psplib, shared, stg};

#[test]
fn makespan_of_every_workflow_is_within_the_bounds_of_list_scheduling() {
    let Some(folder) = shared("workflows") else { return };
    let mut checked = 0;
    for path in common::files(&folder) {
        if path.file_name().unwrap().to_string_lossy().contains("schema") {
            continue;
        }
        let workload = read_workflow(&std::fs::read(&path).unwrap()).unwrap();
        for agents in [1, 4, 16, 64, 256] {
            let simulation = Simulation { agents: Some(agents), ..Simulation::default() };

            let found = simulation.run(&workload, Vec::new()).unwrap();

            let us = |duration: Duration| duration.as_micros();
            let (makespan, work, path_us) =
                (us(found.makespan), us(found.work), us(found.critical_path));
            let m = u128::from(agents);
            let place = format!("{} on {agents} agents", path.display());
            assert_eq!(found.outcome, Outcome::Completed, "{place}");
            assert!(makespan >= path_us.max(work.div_ceil(m)), "{place}: {makespan} too short");
            assert!(makespan * m <= work + (m - 1) * path_us, "{place}: {makespan} too long");
            checked += 1;
        }
    }
    assert!(checked >= 45, "{checked} simulations");
}

#[test]
fn critical_path_first_is_within_a_hundredth_of_the_proved_optima() {
    let Some(folder) = shared("stg") else { return };
    let (mut ratios, mut first_come) = (Vec::new(), Vec::new());
    for (agents, name, optimum) in stg::optima(&folder) {
        let workload = stg::read(&folder.join("50").join(&name));
        for (order, ratios) in
            [(ReadyOrder::CriticalPath, &mut ratios), (ReadyOrder::Fifo, &mut first_come)]
        {
            let simulation = Simulation { agents: Some(agents), order, ..Simulation::default() };
            let found = simulation.run(&workload, Vec::new()).unwrap();
            let ratio = found.makespan.as_secs_f64() / optimum;
            assert!(ratio >= 1.0, "{name} on {agents}: better than the optimum: {ratio}");
            ratios.push(ratio);
        }
    }
    let mean = |ratios: &[f64]| ratios.iter().sum::<f64>() / ratios.len() as f64;
    println!(
        "{} graphs: critical path first {:.4}, first come {:.4} of the optimum",
        ratios.len(),
        mean(&ratios),
        mean(&first_come)
    );
    assert!(ratios.len() >= 100, "{} graphs", ratios.len());
    assert!(mean(&ratios) <= 1.01, "{}", mean(&ratios));
}

#[test]
fn no_quota_is_exceeded_at_any_event() {
    let Some(folder) = shared("quotas") else { return };
    let best = psplib::best_known(&folder);
    let mut ratios = Vec::new();
    for path in common::files(&folder.join("j30")) {
        let (workload, limits) = psplib::read(&path);
        let watch = psplib::Watch::new(&workload, limits);
        let simulation = Simulation { validate: true, ..Simulation::default() };

        let found = simulation.run(&workload, vec![Box::new(watch.clone())]).unwrap();

        assert_eq!(found.outcome, Outcome::Completed);
        assert!(watch.checked() > 50, "{} changes of quotas seen", watch.checked());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let ratio = found.makespan.as_secs_f64() / best[&name];
        assert!(ratio >= 1.0, "{name}: better than the best known");
        println!("{name}: {ratio:.3} of the best known makespan");
        ratios.push(ratio);
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    println!("{} graphs with quotas: {mean:.3} of the best known on average", ratios.len());
    assert!(mean < 1.5);
}
