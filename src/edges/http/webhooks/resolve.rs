//! Where a URL leads when an endpoint is registered. It may lead elsewhere later, so whoever connects
//! looks again; this is for whoever registers, who is told at once.

use std::time::Duration;

use tidings_protocol::net::Network;

use super::super::problem::Problem;
use crate::config::check_address;
use crate::webhooks::{FieldError, Target, WebhookError, WebhooksConfig};

/// How long a look-up may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Refuses a URL whose host has addresses and none that is allowed. A name that cannot be looked up
/// now may be there when the first message is.
pub(super) async fn check(target: &Target, config: &WebhooksConfig) -> Result<(), Problem> {
    // A proxy looks names up itself, and sees others than we do.
    if target.address().is_some() || config.proxy.is_some() {
        return Ok(());
    }
    let host = (target.host(), target.port());
    let Ok(Ok(addresses)) = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(host)).await
    else {
        return Ok(());
    };
    let addresses = addresses.map(|it| it.ip());
    match judge(addresses, &config.allow_networks) {
        Ok(()) => Ok(()),
        Err(detail) => Err(WebhookError::Invalid(vec![FieldError {
            field: "url".to_owned(),
            detail: format!("{}: {detail}", target.host()),
        }])
        .into()),
    }
}

fn judge(
    addresses: impl Iterator<Item = std::net::IpAddr>,
    networks: &[Network],
) -> Result<(), String> {
    let mut refused = None;
    for ip in addresses {
        match check_address(ip, networks) {
            Ok(()) => return Ok(()),
            Err(error) => refused = Some(error.to_string()),
        }
    }
    refused.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_if_it_leads_nowhere_else() {
        let check = |addresses: &[&str], networks: &[&str], expected: bool| {
            let addresses: Vec<_> = addresses.iter().map(|it| it.parse().unwrap()).collect();
            let networks: Vec<_> = networks.iter().map(|it| it.parse().unwrap()).collect();
            let judged = judge(addresses.iter().copied(), &networks);
            assert_eq!(judged.is_ok(), expected, "{addresses:?} {networks:?}");
        };
        check(&["8.8.8.8"], &[], true);
        check(&["10.0.0.1"], &[], false);
        check(&["10.0.0.1"], &["10.0.0.0/8"], true);
        check(&["10.0.0.1", "::1"], &[], false);
        check(&["64:ff9b::808:808", "8.8.8.8"], &[], true);
        check(&["169.254.169.254"], &["0.0.0.0/0"], false);
        check(&[], &[], true);
    }
}
