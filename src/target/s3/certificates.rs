//! Which servers are believed to be who they say they are: those for whom an authority of the system or of a file speaks, and those
//! whose own certificate stands in the file.
//!
//! The second is for the certificate that `openssl req -x509` makes at home: it signs itself and says that it is an authority, which
//! no server's certificate may say. It is in the file because somebody put it there, so it is as good as its name and its dates.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct Verifier {
    /// `None` without any authority: a machine without certificates can talk to a server without TLS.
    usual: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    /// Those of the file.
    own: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Trusts the system's authorities, and what stands in a file.
    ///
    /// # Errors
    /// A sentence when certificates cannot be read.
    pub(super) fn new(file: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Arc<Self>, String> {
        let mut roots = RootCertStore::empty();
        // What cannot be used of the system's is none of our business, unless nothing is left.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let own = file.map_or(Ok(Vec::new()), read)?;
        for certificate in &own {
            let path = file.unwrap_or(Path::new("")).display();
            roots.add(certificate.clone()).map_err(|error| format!("{path}: {error}"))?;
        }
        let usual = match roots.is_empty() {
            true => None,
            false => {
                let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
                Some(builder.build().map_err(|error| error.to_string())?)
            }
        };
        Ok(Arc::new(Self { usual, provider: Arc::clone(provider), own }))
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |problem: String| format!("{}: {problem}", path.display());
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|_| failed("this is no certificate in PEM format".into()))?;
    if found.is_empty() {
        return Err(failed("there is no certificate in it".into()));
    }
    Ok(found)
}

/// Whether the only thing against a certificate is that it is an authority's. Dates are looked at before that.
fn is_authority(error: &Error) -> bool {
    // The type behind it belongs to a library that rustls does not show.
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(usual) = &self.usual else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let verified = usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Err(error) if is_authority(&error) && self.own.contains(end_entity) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=minio.test
    /// -addext subjectAltName=DNS:minio.test`
    const AT_HOME: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBlzCCAT6gAwIBAgIUD7dwlyRsV9gJaOBrZnzzLXFL3fcwCgYIKoZIzj0EAwIw\n\
FTETMBEGA1UEAwwKbWluaW8udGVzdDAgFw0yNjExMjMxMDUyMDlaGA8yMTI2MTAz\n\
MDEwNTIwOVowFTETMBEGA1UEAwwKbWluaW8udGVzdDBZMBMGByqGSM49AgEGCCqG\n\
SM49AwEHA0IABG4QnNEuMb0wYDC+wKWVT/pWJ9/KtHGtlrKAPFACP2Y0AvObuMqA\n\
HSJPtTyuCP+G0xkcZuEMZARnUJgDKTnkZ/yjajBoMB0GA1UdDgQWBBRr8j+FJ04J\n\
fMSAWFc8sh24VMAKnTAfBgNVHSMEGDAWgBRr8j+FJ04JfMSAWFc8sh24VMAKnTAP\n\
BgNVHRMBAf8EBTADAQH/MBUGA1UdEQQOMAyCCm1pbmlvLnRlc3QwCgYIKoZIzj0E\n\
AwIDRwAwRAIgF+tr4nw0YvCexUqmUR7Ck48wmJoJkm5Ft2MGGF68XFMCIAae6XAz\n\
g8qgeqIbHDciiBcvBVWhIW+irChaUbo/xT3S\n\
-----END CERTIFICATE-----\n";

    fn verified(file: Option<&Path>, name: &'static str, year: u64) -> Result<ServerCertVerified, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(file, &provider).unwrap();
        let shown = CertificateDer::from_pem_slice(AT_HOME.as_bytes()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600));
        verifier.verify_server_cert(&shown, &[], &name.try_into().unwrap(), &[], now)
    }

    #[test]
    fn a_certificate_that_stands_in_the_file_is_believed_for_its_name_and_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, AT_HOME).unwrap();
        verified(Some(&file), "minio.test", 2040).unwrap();
        for (file, name, year) in
            [(None, "minio.test", 2040), (Some(&*file), "other.test", 2040), (Some(&*file), "minio.test", 2200)]
        {
            assert!(verified(file, name, year).is_err(), "{file:?} {name} {year}");
        }
        std::fs::write(&file, "nothing").unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        assert!(Verifier::new(Some(&file), &provider).unwrap_err().contains("ca.pem"));
    }
}
