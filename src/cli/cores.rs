//! `tidegate cores`: which shard `serve` would run on which core of this machine, and why.
//!
//! Comes in: the configuration, as for `serve`. Goes out: a table for people that fits 80 columns,
//! or JSON for scripts. The layout is made by the engine's own function, so it is what `serve` does.
//! Nothing is started, pinned or written.

use std::fmt::Write;

use serde::Serialize;

use super::{Failure, Settings, failure};
use crate::driver::cores::{CoreSet, Layout, Machine};
use crate::engine;

const EXAMPLES: &str = "\
Examples:
  tidegate cores
  tidegate cores --cores 2-5,0
  tidegate cores --config tidegate.toml --shards 4
  tidegate cores --json | jq -c '.shards[]'

docs/cores.md says how shards are placed.";

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Where the values of the rows above and below the table begin, as in the banner of `serve`.
const INDENT: usize = 14;
/// Sets of cores wrap in their columns from here on.
const SET_WIDTH_MAX: usize = 16;

/// Print which shard would run on which core, and why
///
/// Reads file, environment and flags as `serve` does, the machine's topology, the affinity mask,
/// the cgroup's limits, and the data directory's number of partitions where there is one; starts
/// nothing. May run beside an engine.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print one JSON object: cores, nodes, limits, shards, control, notes
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: Settings,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let loaded = args.settings.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let failed = |error: &dyn std::error::Error| Failure::at_run_time(error);
    let (machine, layout) = engine::lay_out(&loaded.config).map_err(|error| failed(&error))?;
    if args.json {
        let json = serde_json::to_string(&report(&machine, &layout));
        return failure::print(&(json.map_err(|error| failed(&error))? + "\n"));
    }
    failure::print(&text(&machine, &layout, &loaded.config.data_dir.display().to_string()))
}

fn text(machine: &Machine, layout: &Layout, data_dir: &str) -> String {
    let used: CoreSet = layout.shards.iter().copied().collect();
    let mut out = format!(
        "tidegate serve would start {} on {}\n",
        count(layout.shards.len(), "shard"),
        count(used.len(), "core")
    );
    row(&mut out, "machine", &hardware(machine));
    row(&mut out, "may use", &may_use(machine));
    row(&mut out, "CPU quota", &machine.quota.map_or("none".to_owned(), |quota| quota.to_string()));
    if machine.nodes.len() > 1 {
        let node = machine.disk_node.map_or("not known".to_owned(), |node| node.to_string());
        row(&mut out, "disk", &format!("of {data_dir}: node {node}"));
    }
    let beside = layout.control.iter().any(|core| used.contains(core));
    let beside = if beside { ", beside the shards" } else { "" };
    row(&mut out, "control", &format!("thread on {}{beside}", layout.control));
    out.push('\n');
    table(&mut out, machine, layout);
    if !layout.notes.is_empty() {
        out.push('\n');
    }
    for note in &layout.notes {
        row(&mut out, "note", note);
    }
    out
}

fn hardware(machine: &Machine) -> String {
    let threads = machine.online.len();
    let second: usize = machine.groups.iter().map(|group| group.len() - 1).sum();
    let mut out = match second {
        0 => count(threads, "core"),
        _ => format!("{threads} cores, threads of {} physical ones", threads - second),
    };
    let offline = machine.present.len().saturating_sub(threads);
    if offline > 0 {
        let _ = write!(out, ", {offline} offline");
    }
    let _ = match machine.nodes.len() {
        0 => write!(out, ", NUMA nodes not known"),
        nodes => write!(out, ", {}", count(nodes, "NUMA node")),
    };
    out
}

fn may_use(machine: &Machine) -> String {
    let allowed = &machine.allowed;
    if *allowed == machine.online {
        return format!("{allowed}, all");
    }
    let by = if machine.cpuset.as_ref() == Some(allowed) { "cpuset" } else { "affinity mask" };
    format!("{allowed} ({by})")
}

/// A row of the table: cores that do the same and are of one kind.
struct Row {
    cores: CoreSet,
    node: Option<usize>,
    class: Option<String>,
    /// Which of its physical core's threads.
    thread: usize,
    runs: String,
}

fn rows(machine: &Machine, layout: &Layout) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for core in machine.present.iter() {
        let class = machine.classes.iter().find(|class| class.cores.contains(core));
        let row = Row {
            cores: CoreSet::from_iter([core]),
            node: machine.node(core),
            class: class.map(|class| class.name.clone()),
            thread: machine.siblings(core).iter().filter(|sibling| *sibling < core).count(),
            runs: runs(machine, layout, core),
        };
        let alike = |other: &&mut Row| {
            let kind = |row: &Row| (row.node, row.class.clone(), row.thread, row.runs.clone());
            kind(other) == kind(&row)
        };
        match rows.iter_mut().find(alike) {
            Some(other) => other.cores = other.cores.iter().chain([core]).collect(),
            None => rows.push(row),
        }
    }
    rows
}

/// What `core` does, or why it does nothing.
fn runs(machine: &Machine, layout: &Layout, core: usize) -> String {
    let shards = shards_on(layout, core);
    let granted = machine.cpuset.as_ref().is_none_or(|cpuset| cpuset.contains(core));
    match shards.len() {
        0 if !machine.online.contains(core) => "offline".to_owned(),
        0 if !granted => "outside of the cpuset".to_owned(),
        0 if !machine.allowed.contains(core) && machine.isolated.contains(core) => {
            "isolated".to_owned()
        }
        0 if !machine.allowed.contains(core) => "outside of the mask".to_owned(),
        0 if layout.control.contains(core) => "control thread".to_owned(),
        0 => "no shard".to_owned(),
        1 => format!("shard {shards}"),
        _ => format!("shards {shards}"),
    }
}

/// Shards are numbered and written as cores are.
fn shards_on(layout: &Layout, core: usize) -> CoreSet {
    let shards = layout.shards.iter().enumerate();
    shards.filter(|(_, on)| **on == core).map(|(shard, _)| shard).collect()
}

fn table(out: &mut String, machine: &Machine, layout: &Layout) {
    let cells = |row: &Row| -> Vec<String> {
        let mut cells = vec![row.cores.to_string()];
        if !machine.groups.is_empty() {
            let siblings = row.cores.iter().flat_map(|core| {
                let siblings = machine.siblings(core);
                siblings.iter().filter(|sibling| *sibling != core).collect::<Vec<_>>()
            });
            cells.push(siblings.collect::<CoreSet>().to_string());
        }
        if machine.nodes.len() > 1 {
            cells.push(row.node.map(|node| node.to_string()).unwrap_or_default());
        }
        if !machine.classes.is_empty() {
            cells.push(row.class.clone().unwrap_or_default());
        }
        cells.push(row.runs.clone());
        cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect()
    };
    let mut head = vec!["core"];
    head.extend((!machine.groups.is_empty()).then_some("sibling"));
    head.extend((machine.nodes.len() > 1).then_some("node"));
    head.extend((!machine.classes.is_empty()).then_some("class"));
    head.push("runs");
    let mut lines = vec![head.into_iter().map(str::to_owned).collect()];
    lines.extend(rows(machine, layout).iter().map(cells));
    // All but the last column are as wide as what they hold; the last one has the rest.
    let columns = lines[0].len();
    let mut widths: Vec<usize> = (0..columns)
        .map(|column| lines.iter().map(|line: &Vec<String>| line[column].len()).max().unwrap_or(0))
        .map(|width| width.min(SET_WIDTH_MAX))
        .collect();
    let before: usize = widths[..columns - 1].iter().map(|width| width + 2).sum();
    widths[columns - 1] = WIDTH - 2 - before;
    for line in lines {
        let wrapped: Vec<Vec<String>> =
            line.iter().zip(&widths).map(|(cell, width)| wrap(cell, *width)).collect();
        let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..height {
            let mut text = String::new();
            for (cell, width) in wrapped.iter().zip(&widths) {
                let part = cell.get(at).map_or("", String::as_str);
                let _ = write!(text, "  {part:<width$}");
            }
            let _ = writeln!(out, "{}", text.trim_end());
        }
    }
}

/// A row as the banner of `serve` has them, its value wrapped.
fn row(out: &mut String, name: &str, value: &str) {
    let mut name = name;
    for line in wrap(value, WIDTH - INDENT) {
        let _ = writeln!(out, "  {name:<11} {line}");
        name = "";
    }
}

/// Lines of at most `width` characters where the text lets itself be broken, after blanks and
/// commas.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in text.split_inclusive([' ', ',']) {
        let long = line.chars().count() + piece.trim_end().chars().count() > width;
        if long && !line.is_empty() {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        line.push_str(if line.is_empty() { piece.trim_start() } else { piece });
    }
    lines.push(line.trim_end().to_owned());
    lines
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What `--json` prints; docs/cores.md explains the fields.
#[derive(Debug, Serialize)]
struct Report<'a> {
    cores: Vec<CoreReport<'a>>,
    nodes: Vec<NodeReport>,
    /// None: all cores.
    cpuset: Option<Vec<usize>>,
    /// None: no quota.
    quota_cpus: Option<f64>,
    disk_node: Option<usize>,
    shards: Vec<ShardReport>,
    control: Vec<usize>,
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct CoreReport<'a> {
    core: usize,
    siblings: Vec<usize>,
    node: Option<usize>,
    class: Option<&'a str>,
    online: bool,
    allowed: bool,
    isolated: bool,
    shards: Vec<usize>,
    control: bool,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    node: usize,
    cores: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct ShardReport {
    shard: usize,
    core: usize,
    node: Option<usize>,
}

fn report<'a>(machine: &'a Machine, layout: &'a Layout) -> Report<'a> {
    let core = |core: usize| CoreReport {
        core,
        siblings: machine.siblings(core).iter().filter(|sibling| *sibling != core).collect(),
        node: machine.node(core),
        class: machine
            .classes
            .iter()
            .find(|class| class.cores.contains(core))
            .map(|class| class.name.as_str()),
        online: machine.online.contains(core),
        allowed: machine.allowed.contains(core),
        isolated: machine.isolated.contains(core),
        shards: shards_on(layout, core).iter().collect(),
        control: layout.control.contains(core),
    };
    let nodes = machine.nodes.iter();
    let shards = layout.shards.iter().enumerate();
    Report {
        cores: machine.present.iter().map(core).collect(),
        nodes: nodes
            .map(|node| NodeReport { node: node.number, cores: node.cores.iter().collect() })
            .collect(),
        cpuset: machine.cpuset.as_ref().map(|cpuset| cpuset.iter().collect()),
        quota_cpus: machine.quota.map(|quota| quota.0 as f64 / 1000.0),
        disk_node: machine.disk_node,
        shards: shards
            .map(|(shard, core)| ShardReport { shard, core: *core, node: machine.node(*core) })
            .collect(),
        control: layout.control.iter().collect(),
        notes: &layout.notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::cores::samples::{
        hybrid, node, plain, set, two_sockets, with_pairs, with_quota,
    };
    use crate::driver::cores::{Quota, Wanted, plan};

    fn show(machine: &Machine, cores: Option<&[usize]>, shards: Option<u32>) -> String {
        let wanted = Wanted { cores: cores.map(<[_]>::to_vec), shards, partitions: None };
        text(machine, &plan(machine, &wanted).unwrap(), "tidegate-data")
    }

    fn check(machine: &Machine, cores: Option<&[usize]>, shards: Option<u32>, expected: &str) {
        let found = show(machine, cores, shards);
        assert_eq!(found, expected, "found:\n{found}");
        let widest = found.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(WIDTH), "{found}");
    }

    #[test]
    fn two_cores_and_more_shards_than_that() {
        let expected = "\
tidegate serve would start 2 shards on 2 cores
  machine     2 cores, 1 NUMA node
  may use     0-1, all
  CPU quota   none
  control     thread on 0-1, beside the shards

  core  runs
  0     shard 0
  1     shard 1

  note        every core has a shard: the control thread runs beside them
";
        check(&plain("0-1"), None, None, expected);
        let expected = "\
tidegate serve would start 3 shards on 2 cores
  machine     2 cores, 1 NUMA node
  may use     0-1, all
  CPU quota   none
  control     thread on 0-1, beside the shards

  core  runs
  0     shards 0,2
  1     shard 1

  note        3 shards take turns on 2 cores: good for tests only
  note        every core has a shard: the control thread runs beside them
";
        check(&plain("0-1"), None, Some(3), expected);
    }

    #[test]
    fn two_sockets_with_siblings() {
        let mut machine = two_sockets();
        let expected = "\
tidegate serve would start 8 shards on 8 cores
  machine     16 cores, threads of 8 physical ones, 2 NUMA nodes
  may use     0-15, all
  CPU quota   none
  disk        of tidegate-data: node not known
  control     thread on 8-15

  core   sibling  node  runs
  0      8        0     shard 0
  1      9        0     shard 1
  2      10       0     shard 2
  3      11       0     shard 3
  4      12       1     shard 4
  5      13       1     shard 5
  6      14       1     shard 6
  7      15       1     shard 7
  8-11   0-3      0     control thread
  12-15  4-7      1     control thread

  note        no shards on siblings 8-15, as two on a physical core share its
              speed; --shards 16 takes them too
";
        check(&machine, None, None, expected);
        machine.disk_node = Some(1);
        let expected = "\
tidegate serve would start 6 shards on 6 cores
  machine     16 cores, threads of 8 physical ones, 2 NUMA nodes
  may use     0-15, all
  CPU quota   none
  disk        of tidegate-data: node 1
  control     thread on 2-3,10-11

  core   sibling  node  runs
  0      8        0     shard 4
  1      9        0     shard 5
  2-3    10-11    0     control thread
  4      12       1     shard 0
  5      13       1     shard 1
  6      14       1     shard 2
  7      15       1     shard 3
  8-9    0-1      0     no shard
  10-11  2-3      0     control thread
  12-15  4-7      1     no shard
";
        check(&machine, None, Some(6), expected);
        assert!(include_str!("../../docs/cores.md").contains(expected), "docs/cores.md shows this");
    }

    #[test]
    fn cores_of_two_classes() {
        let expected = "\
tidegate serve would start 6 shards on 6 cores
  machine     8 cores, threads of 6 physical ones, 1 NUMA node
  may use     0-7, all
  CPU quota   none
  control     thread on 1,3

  core  sibling  class        runs
  0     1        performance  shard 0
  1,3   0,2      performance  control thread
  2     3        performance  shard 1
  4     -        efficiency   shard 2
  5     -        efficiency   shard 3
  6     -        efficiency   shard 4
  7     -        efficiency   shard 5

  note        no shards on siblings 1,3, as two on a physical core share its
              speed; --shards 8 takes them too
  note        shards on slower cores: 4-7; every shard gets an equal part of the
              load, so these set the pace; --cores 0,2 leaves them out
";
        check(&hybrid(), None, None, expected);
    }

    #[test]
    fn a_quota_of_one_and_a_half() {
        let expected = "\
tidegate serve would start 1 shard on 1 core
  machine     4 cores, 1 NUMA node
  may use     0-3, all
  CPU quota   1.5 CPUs
  control     thread on 1-3

  core  runs
  0     shard 0
  1-3   control thread

  note        the cgroup's CPU quota of 1.5 CPUs is enough for 1 shard, of the 4
              that the cores would carry
";
        check(&with_quota(1500), None, None, expected);
    }

    #[test]
    fn a_mask_with_holes_an_offline_core_and_a_cpuset() {
        let (allowed, online) = (set("1,3,5"), set("0-6"));
        let mut machine = Machine { allowed, online, cpuset: Some(set("0-5")), ..plain("0-7") };
        let expected = "\
tidegate serve would start 2 shards on 2 cores
  machine     7 cores, 1 offline, 1 NUMA node
  may use     1,3,5 (affinity mask)
  CPU quota   none
  control     thread on 1

  core   runs
  0,2,4  outside of the mask
  1      control thread
  3      shard 1
  5      shard 0
  6      outside of the cpuset
  7      offline
";
        check(&machine, Some(&[5, 3]), None, expected);
        machine.cpuset = Some(machine.allowed.clone());
        assert!(show(&machine, None, None).contains("\n  may use     1,3,5 (cpuset)\n"));
    }

    #[test]
    fn isolated_cores() {
        let machine = Machine { allowed: set("0-1"), isolated: set("2-5"), ..plain("0-5") };
        let expected = "\
tidegate serve would start 2 shards on 2 cores
  machine     6 cores, 1 NUMA node
  may use     0-1 (affinity mask)
  CPU quota   none
  control     thread on 0-1

  core  runs
  0-1   control thread
  2     shard 0
  3     shard 1
  4-5   isolated
";
        check(&machine, Some(&[2, 3]), None, expected);
    }

    #[test]
    fn sets_that_are_too_long_for_a_column_wrap() {
        // Nodes of every second core, as some firmware numbers them, and no names of siblings.
        let all = |first: usize| (first..40).step_by(2).collect::<CoreSet>().to_string();
        let mut machine = plain("0-39");
        machine.nodes = vec![node(0, &all(0), &[]), node(1, &all(1), &[])];
        let expected = "\
tidegate serve would start 1 shard on 1 core
  machine     40 cores, 2 NUMA nodes
  may use     0-39, all
  CPU quota   none
  disk        of tidegate-data: node not known
  control     thread on 1-39

  core              node  runs
  0                 0     shard 0
  1,3,5,7,9,11,13,  1     control thread
  15,17,19,21,23,
  25,27,29,31,33,
  35,37,39
  2,4,6,8,10,12,    0     control thread
  14,16,18,20,22,
  24,26,28,30,32,
  34,36,38
";
        check(&machine, None, Some(1), expected);
        let shards = show(&plain("0-1"), None, Some(256));
        assert!(shards.lines().all(|line| line.len() <= WIDTH), "{shards}");
        assert!(shards.contains(",252,254\n"), "{shards}");
    }

    #[test]
    fn scripts_get_json() {
        let machine = Machine { quota: Some(Quota(1500)), ..with_pairs("0-1", &["0-1"]) };
        let layout = plan(&machine, &Wanted::default()).unwrap();
        let expected = serde_json::json!({
            "cores": [
                {
                    "core": 0, "siblings": [1], "node": 0, "class": null, "online": true,
                    "allowed": true, "isolated": false, "shards": [0], "control": false
                },
                {
                    "core": 1, "siblings": [0], "node": 0, "class": null, "online": true,
                    "allowed": true, "isolated": false, "shards": [], "control": true
                }
            ],
            "nodes": [{"node": 0, "cores": [0, 1]}],
            "cpuset": null,
            "quota_cpus": 1.5,
            "disk_node": null,
            "shards": [{"shard": 0, "core": 0, "node": 0}],
            "control": [1],
            "notes": [
                "no shards on sibling 1, as two on a physical core share its speed; \
                 --shards 2 takes them too"
            ]
        });
        assert_eq!(serde_json::to_value(report(&machine, &layout)).unwrap(), expected);
    }
}
