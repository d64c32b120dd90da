//! Keys of a role that is assumed with a token of somebody else's, for example of a Kubernetes cluster (AWS STS API Reference:
//! "AssumeRoleWithWebIdentity"). MinIO and radosgw answer the same question.

use crate::target::s3::credentials::{Issued, Keys, WebIdentity};
use crate::target::s3::issuer::{ask, moment};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use zeroize::Zeroizing;

/// What sessions are called, unless something else is said.
pub const SESSION_DEFAULT: &str = "backyfs";

const WHO: &str = "the token service";

/// The token service of AWS in a region, or the one for all of them.
pub fn endpoint(region: Option<&str>) -> String {
    match region {
        None | Some("") => "https://sts.amazonaws.com/".into(),
        Some(region) if region.starts_with("cn-") => format!("https://sts.{region}.amazonaws.com.cn/"),
        Some(region) => format!("https://sts.{region}.amazonaws.com/"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    assume_role_with_web_identity_result: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    credentials: Credentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

/// Gets keys.
///
/// # Errors
/// A sentence: the token cannot be read, or the service gives no keys for it.
pub(super) fn issue(role: &WebIdentity) -> Result<Issued, String> {
    let file = role.token_file.display();
    let token = std::fs::read_to_string(&role.token_file).map_err(|error| format!("{file} cannot be read: {error}"))?;
    let token = Zeroizing::new(token);
    // In the body: addresses get into logs.
    let body: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "AssumeRoleWithWebIdentity")
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", &role.role)
        .append_pair("RoleSessionName", &role.session)
        .append_pair("WebIdentityToken", token.trim())
        .finish();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let answer = ask(WHO, Method::POST, &role.endpoint, headers, &body)?;
    let none = || format!("{WHO} did not answer with keys");
    let text = std::str::from_utf8(&answer).map_err(|_| none())?;
    let response: Response = quick_xml::de::from_str(text).map_err(|_| none())?;
    let Credentials { access_key_id, secret_access_key, session_token, expiration } =
        response.assume_role_with_web_identity_result.credentials;
    let keys = Keys {
        access_key: access_key_id,
        secret_key: secret_access_key.into(),
        session_token: Some(session_token.into()),
    };
    Ok(Issued { keys, until: Some(moment(&expiration).ok_or_else(none)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::s3::issuer::testing::serve;

    #[test]
    fn a_token_in_a_file_is_changed_into_keys() {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        std::fs::write(&token_file, "a.b+c\n").unwrap();
        let endpoint = serve(|asked| {
            let wanted = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr\
                          &RoleSessionName=backyfs&WebIdentityToken=a.b%2Bc";
            if !asked.line.starts_with("POST / ") || asked.body != wanted {
                return (400, format!("<Error>{}</Error>", asked.body));
            }
            let answer = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                          <AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>x</SubjectFromWebIdentityToken><Credentials>\
                          <AccessKeyId>A</AccessKeyId><SecretAccessKey>geheim</SecretAccessKey><SessionToken>t</SessionToken>\
                          <Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
                          <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>";
            (200, answer.into())
        });
        let role = |role: &str| WebIdentity {
            role: role.into(),
            token_file: token_file.clone(),
            session: SESSION_DEFAULT.into(),
            endpoint: format!("{endpoint}/"),
        };
        let issued = issue(&role("arn:aws:iam::1:role/r")).unwrap();
        assert_eq!((issued.keys.secret_key.as_str(), issued.until), ("geheim", moment("2030-01-01T00:00:00Z")));
        let error = issue(&role("other")).unwrap_err();
        assert_eq!(error, "the token service gives no keys: status 400");
        std::fs::remove_file(&token_file).unwrap();
        assert!(issue(&role("r")).unwrap_err().contains("cannot be read"));
    }
}
