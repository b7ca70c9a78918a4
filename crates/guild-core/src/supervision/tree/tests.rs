//! What a whole tree does, told by agents that obey at once.

use std::time::Duration;

use super::super::{Exhausted, RestartType, Strategy};
use super::*;
use crate::restart::RestartPolicy;

/// A tree whose agents obey at once.
struct Forest {
    tree: Tree,
    names: BTreeMap<RoleId, Arc<str>>,
    now: Timestamp,
    told: Vec<String>,
    escalations: Vec<Escalation>,
}

fn spec(strategy: Strategy, intensity: u32) -> SupervisorSpec {
    let restart = RestartPolicy { intensity, ..RestartPolicy::default() };
    SupervisorSpec { strategy, restart, ..SupervisorSpec::default() }
}

fn role(number: u16, name: &str, agents: u32, supervisor: SupervisorSpec) -> RoleSpec {
    RoleSpec { name: name.into(), role: RoleId(number), agents, supervisor }
}

fn group(name: &str, members: &[&str], supervisor: SupervisorSpec) -> GroupSpec {
    let members = members.iter().map(|member| (*member).into()).collect();
    GroupSpec { name: name.into(), members, supervisor }
}

impl Forest {
    fn new(spec: TreeSpec) -> Self {
        let names = spec.roles.iter().map(|role| (role.role, Arc::clone(&role.name))).collect();
        let (tree, told, escalations) = (spec.build().unwrap(), Vec::new(), Vec::new());
        let mut forest = Self { tree, names, now: Timestamp(0), told, escalations };
        forest.tell(TreeInput::Start);
        forest
    }

    fn tell(&mut self, input: TreeInput) -> Option<Verdict> {
        let mut orders = Vec::new();
        let verdict = self.tree.step(self.now, input, 0.0, &mut orders);
        while !orders.is_empty() {
            for order in std::mem::take(&mut orders) {
                let name = |agent: AgentId| format!("{}{}", self.names[&agent.role], agent.index);
                let (agent, answer) = match order {
                    TreeOrder::Start { agent, probe, .. } => {
                        self.told.push(format!("{}{}", if probe { '?' } else { '+' }, name(agent)));
                        (agent, Input::Up { child: agent.index })
                    }
                    TreeOrder::Stop { agent } => {
                        self.told.push(format!("-{}", name(agent)));
                        (agent, Input::Stopped { child: agent.index })
                    }
                    TreeOrder::Abandon { .. } => unreachable!("they all obey"),
                    TreeOrder::Lost { role } => {
                        self.told.push(format!("lost {}", self.names[&role]));
                        continue;
                    }
                    TreeOrder::Escalated(escalation) => {
                        self.escalations.push(*escalation);
                        continue;
                    }
                    TreeOrder::Ended(_) => {
                        self.told.push("!".to_owned());
                        continue;
                    }
                };
                let input = TreeInput::Agent { role: agent.role, input: answer };
                self.tree.step(self.now, input, 0.0, &mut orders);
            }
        }
        verdict
    }

    fn dies(&mut self, role: u16, child: u32) -> Option<Verdict> {
        let input = Input::Down { child, exit: Exit::Failed { cause: 7 } };
        self.tell(TreeInput::Agent { role: RoleId(role), input })
    }

    fn after(&mut self, seconds: u64) -> String {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.tell(TreeInput::Tick);
        std::mem::take(&mut self.told).join(" ")
    }

    fn chain(&self) -> Vec<&str> {
        let last = self.escalations.last().expect("somebody gave up");
        last.chain.iter().map(|link| &*link.supervisor).collect()
    }
}

/// Roles `a` and `b` in the group `g`, and `c` outside of it.
fn grouped(role_spec: SupervisorSpec, group_spec: SupervisorSpec, root: SupervisorSpec) -> Forest {
    Forest::new(TreeSpec {
        root,
        roles: vec![
            role(0, "a", 2, role_spec.clone()),
            role(1, "b", 1, role_spec),
            role(2, "c", 1, SupervisorSpec::default()),
        ],
        groups: vec![group("g", &["a", "b"], group_spec)],
    })
}

#[test]
fn the_tree_starts_in_order_and_stops_in_reverse() {
    let spec = SupervisorSpec::default;
    let mut forest = grouped(spec(), spec(), spec());
    assert_eq!(forest.after(0), "+a0 +a1 +b0 +c0");
    forest.tell(TreeInput::Stop);
    assert_eq!(forest.after(0), "-c0 -b0 -a1 -a0 !");
}

#[test]
fn a_role_that_gives_up_takes_its_group_along_and_nobody_else() {
    let weak = SupervisorSpec { exhausted: Exhausted::Escalate, ..spec(Strategy::OneForOne, 1) };
    let mut forest = grouped(weak, spec(Strategy::OneForAll, 5), SupervisorSpec::default());
    forest.after(0);
    assert!(matches!(forest.dies(0, 0), Some(Verdict::Restart { .. })));
    assert_eq!(forest.after(1), "+a0");
    assert_eq!(forest.dies(0, 0), Some(Verdict::Meltdown));
    assert_eq!(forest.after(1), "-a1 -b0 +a0 +a1 +b0");
    assert_eq!(forest.chain(), ["a"]);
    assert_eq!(forest.escalations[0].role, Some(RoleId(0)));
    assert!(matches!(forest.escalations[0].verdict, Verdict::Restart { .. }));
}

#[test]
fn the_root_degrades_the_guild_or_ends_it_and_tells_the_chain() {
    for exhausted in [Exhausted::Quarantine, Exhausted::Escalate] {
        let weak =
            || SupervisorSpec { exhausted: Exhausted::Escalate, ..spec(Strategy::OneForOne, 0) };
        let root = SupervisorSpec { exhausted, ..spec(Strategy::OneForOne, 0) };
        let mut forest = grouped(weak(), weak(), root);
        forest.after(0);
        assert_eq!(forest.dies(1, 0), Some(Verdict::Meltdown));
        if exhausted == Exhausted::Quarantine {
            assert_eq!(forest.after(29), "-a1 -a0", "c serves on");
            assert_eq!(forest.chain(), ["b", "g"]);
            assert_eq!(forest.after(1), "?a0 ?a1 ?b0", "half open");
            let passed = Input::Passed { child: 1 };
            forest.tell(TreeInput::Agent { role: RoleId(0), input: passed });
            forest.tell(TreeInput::Agent { role: RoleId(2), input: Input::Passed { child: 0 } });
        } else {
            assert_eq!(forest.after(0), "-a1 -a0 -c0 !");
            assert_eq!(forest.chain(), ["b", "g", ""]);
            assert_eq!(forest.escalations[0].verdict, Verdict::Meltdown);
        }
        assert_eq!(forest.escalations.len(), 1, "one failure is one escalation");
    }
}

#[test]
fn a_subtree_on_probation_is_quarantined_for_twice_as_long_until_one_of_its_agents_passes() {
    let weak = || SupervisorSpec { exhausted: Exhausted::Escalate, ..spec(Strategy::OneForOne, 0) };
    let until = |forest: &Forest| match forest.escalations.last().map(|last| last.verdict) {
        Some(Verdict::Quarantine { until }) => until.since(forest.now).as_secs(),
        other => panic!("{other:?}"),
    };
    let mut forest = grouped(weak(), weak(), spec(Strategy::OneForOne, 0));
    forest.dies(1, 0);
    assert_eq!(until(&forest), 30);
    forest.after(30);
    forest.dies(1, 0);
    assert_eq!(until(&forest), 60, "the probe failed");
    forest.after(60);
    let passed = Input::Passed { child: 0 };
    forest.tell(TreeInput::Agent { role: RoleId(1), input: passed });
    forest.dies(1, 0);
    assert_eq!(until(&forest), 30, "a passed probe clears the record");
}

#[test]
fn roles_that_nothing_brings_back_are_told() {
    let temporary = |spec| SupervisorSpec { restart_type: RestartType::Temporary, ..spec };
    let weak = SupervisorSpec { exhausted: Exhausted::Escalate, ..spec(Strategy::OneForOne, 0) };
    let mut forest = grouped(weak.clone(), weak, temporary(SupervisorSpec::default()));
    forest.after(0);
    forest.dies(0, 1);
    assert_eq!(forest.after(0), "-a0 -b0 lost a lost b");

    let alone = role(0, "a", 2, temporary(SupervisorSpec::default()));
    let mut forest = Forest::new(TreeSpec { roles: vec![alone], ..TreeSpec::default() });
    forest.dies(0, 0);
    forest.after(0);
    forest.dies(0, 1);
    assert_eq!(forest.after(0), "lost a");
}

#[test]
fn groups_that_make_no_tree_are_refused_with_the_place() {
    let plan = |groups: Vec<GroupSpec>| {
        let roles = vec![role(0, "a", 1, SupervisorSpec::default())];
        let refused = TreeSpec { roles, groups, ..TreeSpec::default() }.build().unwrap_err();
        refused.to_string()
    };
    let of = |name, members: &[&str]| group(name, members, SupervisorSpec::default());

    assert!(plan(vec![of("a", &["a"])]).contains("the name of another"));
    assert!(plan(vec![of("g", &[])]).contains("has no members"));
    assert!(plan(vec![of("g", &["x"])]).contains("`x`, which is neither"));
    assert!(plan(vec![of("g", &["a"]), of("h", &["a"])]).contains("in `g` and in `h`"));
    assert!(plan(vec![of("g", &["a", "h"]), of("h", &["g"])]).contains("contains itself"));
}
