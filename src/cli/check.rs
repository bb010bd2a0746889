//! `tidings check`: all that is wrong with the configuration, or that nothing is.

use std::io::Write;

use tidings::access::Access;
use tidings::config::{Config, Problems};

use super::ConfigOptions;

/// Loads what `serve` would load, the password file included, and starts nothing.
pub fn run(options: &ConfigOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let config = load(options)?;
    for warning in config.warnings() {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "configuration is fine")?;
    let source = options
        .file()
        .map_or("the defaults".to_owned(), |file| file.display().to_string());
    writeln!(out, "settings: {source}")?;
    for address in &config.mqtt.listen {
        writeln!(out, "mqtt.listen: {address}")?;
    }
    for address in &config.http.listen {
        writeln!(out, "http.listen: {address}")?;
    }
    Ok(())
}

fn load(options: &ConfigOptions) -> Result<Config, Problems> {
    let config = options.load()?;
    Access::new(&config)?;
    Ok(config)
}
