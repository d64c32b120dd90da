//! Keys of a virtual machine's role, from its metadata service, version 2 (AWS: "Use the Instance Metadata Service", IMDSv2).

use crate::target::s3::credentials::Issued;
use crate::target::s3::issuer::{Answer, ask};
use http::{HeaderMap, HeaderValue, Method};

/// Where it is, unless something else is said.
pub const ENDPOINT: &str = "http://169.254.169.254";

const WHO: &str = "the metadata service of this machine";
/// How long a session is good; each is used for two requests.
const SESSION_SECONDS: &str = "60";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// Gets keys.
///
/// # Errors
/// A sentence: there is no such service, or the machine has no role.
pub(super) fn issue(endpoint: &str) -> Result<Issued, String> {
    let base = endpoint.trim_end_matches('/');
    let mut headers = HeaderMap::new();
    headers.insert("x-aws-ec2-metadata-token-ttl-seconds", HeaderValue::from_static(SESSION_SECONDS));
    let session = ask(WHO, Method::PUT, &format!("{base}/latest/api/token"), headers, "")?;
    let mut session = HeaderValue::from_bytes(&session).map_err(|_| format!("{WHO} gives no session"))?;
    session.set_sensitive(true);
    let headers = HeaderMap::from_iter([("x-aws-ec2-metadata-token".parse().expect("a name of a header"), session)]);
    let roles = ask(WHO, Method::GET, &format!("{base}{ROLES}"), headers.clone(), "")?;
    let role = std::str::from_utf8(&roles).ok().and_then(|text| text.lines().next()).map(str::trim);
    let is_name =
        |role: &&str| !role.is_empty() && role.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b));
    let role = role.filter(is_name).ok_or_else(|| format!("{WHO} knows no role for it"))?;
    Answer::parse(WHO, &ask(WHO, Method::GET, &format!("{base}{ROLES}{role}"), headers, "")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::s3::issuer::testing::serve;

    #[test]
    fn a_role_is_asked_for_with_a_session() {
        let endpoint = serve(|asked| {
            let has_session = asked.headers.contains("x-aws-ec2-metadata-token: session1\r\n");
            match asked.line.split_whitespace().take(2).collect::<Vec<_>>()[..] {
                ["PUT", "/latest/api/token"] if asked.headers.contains("ttl-seconds: 60") => (200, "session1".into()),
                ["GET", ROLES] if has_session => (200, "backup-role\n".into()),
                ["GET", "/latest/meta-data/iam/security-credentials/backup-role"] if has_session => (
                    200,
                    r#"{"Code":"Success","AccessKeyId":"A","SecretAccessKey":"geheim","Token":"t","Expiration":"2030-01-01T00:00:00Z"}"#
                        .into(),
                ),
                _ => (401, String::new()),
            }
        });
        let issued = issue(&format!("{endpoint}/")).unwrap();
        assert_eq!((issued.keys.access_key.as_str(), issued.keys.secret_key.as_str()), ("A", "geheim"));
        assert!(issued.until.is_some() && issued.keys.session_token.is_some());
    }

    #[test]
    fn a_machine_without_a_role_is_told() {
        let endpoint =
            serve(|asked| if asked.line.starts_with("PUT") { (200, "s".into()) } else { (404, String::new()) });
        assert_eq!(issue(&endpoint).unwrap_err(), format!("{WHO} gives no keys: status 404"));
        let odd = serve(|asked| (200, if asked.line.starts_with("PUT") { "s" } else { "../x" }.into()));
        assert_eq!(issue(&odd).unwrap_err(), format!("{WHO} knows no role for it"));
    }
}
