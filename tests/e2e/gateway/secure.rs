//! Upstreams behind TLS, and behind sockets in the file system.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tests::{
    frames::{FrameClient, frame},
    relay::TestRelay,
    upstream::{Echo, Upstream},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::{BINARY, RULE, WAYS, refused, route, say};

/// An authority of the test's own, in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lines = BASE64.encode(issuer.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n");
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        Self { issuer, folder }
    }

    /// The file with its certificate.
    fn file(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    /// A server that goes by this name.
    async fn serve(&self, name: &str) -> Echo {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Echo::tls(TlsAcceptor::from(Arc::new(config))).await
    }
}

async fn relay_to(upstream: &str, more: &str) -> TestRelay {
    let config = format!("[[route]]\npath = \"/app\"\nupstreams = [\"{upstream}\"]\n{more}\n");
    TestRelay::with_config(&config, &[]).await
}

#[tokio::test]
async fn each_upstream_of_a_route_is_spoken_to_as_its_own_address_says() {
    let authority = Authority::new();
    let (plain, secure) = (Echo::named("plain:").await, authority.serve("localhost").await);
    let config = format!(
        "[[route]]\npath = \"/app\"\nupstreams = [\"ws://{}\", \"wss://localhost:{}\"]\nbalance = \"round-robin\"\n\
         ca = \"{}\"\n",
        plain.address(),
        secure.address().port(),
        authority.file()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    for back in ["plain:x", "x", "plain:x"] {
        say(&mut FrameClient::connect(relay.address(), "/app").await, "x", back).await;
    }
    let counted = route(&relay, "/app").await;
    for upstream in [0, 1] {
        assert_eq!(counted["upstreams"][upstream]["failures"], 0);
    }
}

#[tokio::test]
async fn wss_goes_to_an_upstream_whose_authority_the_route_trusts() {
    let authority = Authority::new();
    let ca = format!("ca = \"{}\"", authority.file());
    for (name, host, more) in [
        ("localhost", "localhost", String::new()),
        ("127.0.0.1", "127.0.0.1", format!("max_message = \"4MiB\"\n{RULE}")),
    ] {
        let echo = authority.serve(name).await;
        let upstream = format!("wss://{host}:{}", echo.address().port());
        let relay = relay_to(&upstream, &format!("{ca}\n{more}")).await;
        let mut client = FrameClient::connect(relay.address(), "/app").await;
        say(&mut client, "through TLS", "through TLS").await;
        let mut random = fastrand::Rng::with_seed(3);
        let mut large = vec![0; 3 << 20];
        random.fill(&mut large);
        client.send_bytes(&frame(BINARY, &large)).await;
        client.expect(BINARY, &large).await;
        let counted = route(&relay, "/app").await;
        assert_eq!(counted["from_upstream"]["messages"], 2);
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_trusted_is_502_and_says_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let echo = authority.serve("localhost").await;
    let port = echo.address().port();
    let wrong_authority = format!("ca = \"{}\"", other.file());
    let right_authority = format!("ca = \"{}\"", authority.file());
    for (host, keys) in
        [("localhost", &wrong_authority), ("localhost", &String::new()), ("127.0.0.1", &right_authority)]
    {
        let relay = relay_to(&format!("wss://{host}:{port}"), keys).await;
        let answer = refused(&relay, "/app", "").await;
        assert_eq!(answer.status, 502, "{}", answer.body);
        assert!(
            answer.body.contains(&format!("the upstream {host}:{port} can't be trusted")),
            "{}",
            answer.body
        );
    }
    assert!(echo.heads().is_empty());
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_502() {
    let upstream = Upstream::start().await;
    let relay = relay_to(&format!("wss://localhost:{}", upstream.address().port()), "").await;
    let puzzled = async {
        let mut stream = upstream.connection().await;
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
        stream
    };
    let (answer, _stream) = tokio::join!(refused(&relay, "/app", ""), puzzled);
    assert_eq!(answer.status, 502, "{}", answer.body);
}

#[tokio::test]
async fn a_reset_behind_tls_is_1011_and_a_half_close_passes() {
    for way in WAYS {
        let authority = Authority::new();
        let echo = authority.serve("localhost").await;
        let ca = format!("ca = \"{}\"", authority.file());
        let relay =
            relay_to(&format!("wss://localhost:{}", echo.address().port()), &format!("{ca}\n{way}")).await;
        let mut client = FrameClient::connect(relay.address(), "/app").await;
        say(&mut client, "x", "x").await;
        // Its tasks and sockets go with it.
        drop(echo);
        assert_eq!(client.closed().await, 1011);
        drop(client);
        super::ended(&relay, "upstream", "failed").await;
    }
}

#[tokio::test]
async fn an_upstream_may_be_a_socket_in_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let echo = Echo::unix(&path);
    let relay = relay_to(&format!("ws+unix:{}", path.display()), "host = \"upstream\"").await;
    let mut client = FrameClient::connect(relay.address(), "/app/x?y").await;
    say(&mut client, "through a file", "through a file").await;
    assert_eq!(echo.last_head().line(), "GET /app/x?y HTTP/1.1");
    assert_eq!(echo.last_head().values("host"), ["localhost"]);

    let relay = relay_to(&format!("ws+unix:{}:/base", path.display()), "rewrite = \"/in\"").await;
    say(&mut FrameClient::connect(relay.address(), "/app/x").await, "x", "x").await;
    assert_eq!(echo.last_head().line(), "GET /base/in/x HTTP/1.1");
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_502() {
    let relay = relay_to("ws+unix:/nowhere/app.sock", "").await;
    let answer = refused(&relay, "/app", "").await;
    assert_eq!(answer.status, 502, "{}", answer.body);
    assert!(answer.body.contains("the upstream /nowhere/app.sock is not there"), "{}", answer.body);
}
