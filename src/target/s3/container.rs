//! Keys of a container's role, from the agent of ECS or EKS (AWS SDKs Reference Guide: "Container credential provider").

use crate::target::s3::credentials::{ContainerToken, Issued};
use crate::target::s3::issuer::{Answer, ask};
use http::{HeaderMap, HeaderValue, Method, header};
use std::net::IpAddr;
use url::{Host, Url};

/// Where ECS has its agent.
pub const ECS: &str = "http://169.254.170.2";

const WHO: &str = "the agent of this container";
/// The agents of ECS and EKS, which answer without TLS.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Gets keys.
///
/// # Errors
/// A sentence: nobody is there, or the address is not one that may be asked.
pub(super) fn issue(url: &str, token: Option<&ContainerToken>) -> Result<Issued, String> {
    if !may_be_asked(url) {
        return Err(format!(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or an address of this machine or of {WHO}"
        ));
    }
    let mut headers = HeaderMap::new();
    let token = match token {
        None => None,
        Some(ContainerToken::Given(token)) => Some(token.text().to_owned()),
        Some(ContainerToken::File(path)) => {
            let read = std::fs::read_to_string(path);
            Some(read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?)
        }
    };
    if let Some(token) = token {
        let mut value =
            HeaderValue::from_str(token.trim_end()).map_err(|_| "the token of the container is none".to_owned())?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Answer::parse(WHO, &ask(WHO, Method::GET, url, headers, "")?)
}

/// A token must not be sent through a network where everybody reads it.
fn may_be_asked(url: &str) -> bool {
    let Ok(url) = url.parse::<Url>() else { return false };
    let is_here = |ip: IpAddr| ip.is_loopback() || AGENTS.iter().any(|agent| agent.parse() == Ok(ip));
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Domain(name))) => name == "localhost",
        ("http", Some(Host::Ipv4(ip))) => is_here(ip.into()),
        ("http", Some(Host::Ipv6(ip))) => is_here(ip.into()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::s3::credentials::Hidden;
    use crate::target::s3::issuer::testing::serve;

    #[test]
    fn the_agent_wants_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "token1\n").unwrap();
        let agent = serve(|asked| {
            let may =
                asked.line.starts_with("GET /v1/credentials ") && asked.headers.contains("authorization: token1\r\n");
            let answer =
                r#"{"AccessKeyId":"A","SecretAccessKey":"geheim","Token":"t","Expiration":"2030-01-01T00:00:00Z"}"#;
            if may { (200, answer.into()) } else { (403, "geheim".into()) }
        });
        let url = format!("{agent}/v1/credentials");
        let given = |token: &str| ContainerToken::Given(Hidden::new(token.into()));
        for token in [ContainerToken::File(file), given("token1")] {
            assert_eq!(issue(&url, Some(&token)).unwrap().keys.access_key, "A");
        }
        let error = issue(&url, Some(&given("token2"))).unwrap_err();
        assert_eq!(error, format!("{WHO} gives no keys: status 403"));
    }

    #[test]
    fn tokens_do_not_travel_in_the_open() {
        for url in ["http://192.0.2.1/x", "http://example.org/x", "ftp://127.0.0.1/", "nonsense"] {
            assert!(!may_be_asked(url), "{url}");
        }
        for url in [
            "https://example.org/x",
            "http://127.0.0.1:80/x",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://localhost/x",
        ] {
            assert!(may_be_asked(url), "{url}");
        }
        assert!(issue("http://192.0.2.1/x", None).unwrap_err().contains("must be https"));
    }
}
