//! What docs/performance.md says of speed: measured with a release build, and written into the page.

use crate::services::Services;
use crate::step::{Chore, Failed};

/// Measures everything, or the parts that are named, and writes the page. The machine should have nothing else to do.
pub(crate) fn measure(chore: &Chore, parts: &[&str]) -> Result<(), Failed> {
    build(chore)?;
    let services = Services::start(chore)?;
    let program = |name: &str| chore.target().join("release").join(name);
    let mut measure = chore.program(program("examples/performance"));
    measure.arg("--docs").arg(chore.root().join("docs"));
    measure
        .arg("--binary")
        .arg(program("caracal"))
        .arg("--ledger")
        .arg(program("examples/ledger_at_scale"))
        .args(parts);
    chore.run(
        "measuring (half an hour; it takes ten gigabytes in the directory for temporary files)",
        services.known_to(&mut measure),
    )
}

/// Writes the page from what was measured last.
pub(crate) fn page(chore: &Chore) -> Result<(), Failed> {
    let run = ["run", "--locked", "--package", "caracal", "--example", "performance", "--", "--page", "--docs", "docs"];
    chore.run("writing the tables of docs/performance.md", chore.cargo().args(run))
}

fn build(chore: &Chore) -> Result<(), Failed> {
    let mut build = chore.cargo();
    build.args([
        "build",
        "--locked",
        "--release",
        "--package",
        "caracal",
        "--bin",
        "caracal",
        "--example",
        "performance",
        "--example",
        "ledger_at_scale",
    ]);
    chore.run("building what is measured (minutes)", &mut build)
}
