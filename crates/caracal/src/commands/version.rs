//! `caracal version` (contract: control-cli-deploy.md §4.1).

use std::process::ExitCode;

use super::Failure;

/// The version of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version.
pub fn version(json: bool) -> Result<ExitCode, Failure> {
    let sha = option_env!("CARACAL_BUILD_SHA").unwrap_or("unknown");
    let mode = match VERSION {
        version if version.contains("-dev.") => "dev",
        version if version.contains("-rc.") => "rc",
        _ => "stable",
    };
    if json {
        let line = serde_json::json!({"binary": "caracal", "version": VERSION, "mode": mode, "sha": sha});
        println!("{line}");
    } else {
        println!("Caracal, the control plane for AI agents");
        for (name, value) in [("binary", "caracal"), ("version", VERSION), ("mode", mode), ("sha", sha)] {
            println!("{name:<8} {value}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
