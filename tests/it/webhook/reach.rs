//! Where the broker connects to, and where it must not: TLS, HTTP/2, proxies, names that change.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tidings::Server;
use tidings::edges::webhook::{Resolve, Resolving};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use super::*;

/// An authority that signs for whom it is told to.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both in PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, name: &str) -> Identity {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// TLS of a server with this name; `clients` is who has to have signed a client's certificate.
    fn server(&self, name: &str, alpn: &[&str], clients: Option<&Authority>) -> TlsAcceptor {
        let identity = self.sign(name);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                let pem = clients.pem();
                let root = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
                roots.add(root).expect("a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("roots"))
            }
        };
        let chain = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let mut config = builder
            .with_single_cert(vec![chain.expect("a certificate")], key)
            .expect("they belong together");
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn pem_field(name: &str, pem: &str) -> String {
    format!("{name} = \"\"\"\n{pem}\"\"\"\n")
}

/// Dead letters of the endpoint, once there are so many.
async fn dead_letters(http: SocketAddr, count: usize) -> String {
    until(http, "/v1/webhooks/hook/dead-letters", |shown| {
        (shown.matches("\"error\"").count() == count).then(|| shown.to_owned())
    })
    .await
}

/// Settings for an endpoint of this machine behind TLS.
fn tls_settings(receiver: &Receiver, fields: &str) -> String {
    let url = receiver
        .url()
        .replace("http://127.0.0.1", "https://localhost");
    settings(&url, fields)
}

/// An endpoint with an authority of its own is believed, and nobody else in its place.
#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let authority = Authority::new();
    let acceptor = authority.server("localhost", &["http/1.1"], None);
    let mut receiver = Receiver::with_tls(acceptor).await;
    let ca = pem_field("ca_certificate", &authority.pem());
    let broker = Broker::with(&tls_settings(&receiver, &ca)).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    assert_eq!(receiver.request().await.data(), "hello");

    let other = pem_field("ca_certificate", &Authority::new().pem());
    for wrong in [other.as_str(), ""] {
        let fields = format!("{wrong}retry_schedule = []");
        let broker = Broker::with(&tls_settings(&receiver, &fields)).await;
        let mut publisher = broker.client("publisher").await;
        publisher.publish_text("t", "secret", 1).await;
        let dead = dead_letters(broker.http, 1).await;
        assert!(dead.contains("TLS"), "{dead}");
    }
    assert!(receiver.arrived().is_empty());
}

/// A certificate of the right authority for another name is as good as none.
#[tokio::test]
async fn tls_checks_the_name() {
    let authority = Authority::new();
    let acceptor = authority.server("other.example", &[], None);
    let mut receiver = Receiver::with_tls(acceptor).await;
    let ca = pem_field("ca_certificate", &authority.pem());
    let fields = format!("{ca}retry_schedule = []");
    let broker = Broker::with(&tls_settings(&receiver, &fields)).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "secret", 1).await;
    let dead = dead_letters(broker.http, 1).await;
    assert!(dead.contains("TLS"), "{dead}");
    assert!(receiver.arrived().is_empty());
}

/// An endpoint that asks for a certificate gets ours.
#[tokio::test]
async fn tls_with_a_client_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let acceptor = authority.server("localhost", &["http/1.1"], Some(&clients));
    let mut receiver = Receiver::with_tls(acceptor).await;
    let us = clients.sign("broker.example");
    let fields = pem_field("ca_certificate", &authority.pem())
        + &pem_field("client_certificate", &us.certificate)
        + &pem_field("client_key", &us.key);
    let broker = Broker::with(&tls_settings(&receiver, &fields)).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    assert_eq!(receiver.request().await.data(), "hello");
}

/// Where both can, HTTP/2 is spoken, and one connection serves all requests.
#[tokio::test]
async fn http2_needs_one_connection() {
    let authority = Authority::new();
    let acceptor = authority.server("localhost", &["h2"], None);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let (sender, mut bodies) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.expect("accepted");
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.expect("TLS");
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let sender = sender.clone();
                    async move {
                        let authority = request.uri().authority().map(ToString::to_string);
                        let body = request.into_body().collect().await?.to_bytes();
                        let _ = sender.send((connection, authority, body));
                        let answer = hyper::Response::new(Full::new(&b"ok"[..]));
                        Ok::<_, hyper::Error>(answer)
                    }
                });
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http2.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let url = format!("https://localhost:{port}/");
    let ca = pem_field("ca_certificate", &authority.pem());
    let broker = Broker::with(&settings(&url, &ca)).await;
    let mut publisher = broker.client("publisher").await;
    for index in 0..50 {
        publisher.publish_text("t", &index.to_string(), 1).await;
    }
    for _ in 0..50 {
        let (connection, authority, _) = bodies.recv().await.expect("a request");
        assert_eq!(connection, 0);
        assert_eq!(authority, Some(format!("localhost:{port}")));
    }
}

/// Answers what it was told last.
struct Changing(Mutex<Vec<IpAddr>>);

impl Resolve for Changing {
    fn resolve<'a>(&'a self, _name: &'a str) -> Resolving<'a> {
        let answer = self.0.lock().expect("no panic").clone();
        Box::pin(async move { Ok(answer) })
    }
}

/// A name whose address has become a forbidden one is not connected to, whatever it was before.
#[tokio::test]
async fn a_name_that_changes_leads_nowhere_else() {
    let mut receiver = Receiver::start().await;
    let port = receiver.address.port();
    // The same port of another address of this machine, which is in no allowed network.
    let mut inside = Receiver::at(&format!("127.0.0.2:{port}")).await;
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let resolver = Arc::new(Changing(Mutex::new(vec![address("127.0.0.1")])));
    let closing = Act::Answer(200, "connection: close\r\n".to_owned(), Vec::new());
    receiver.always(closing);
    let schedule = "retry_schedule = [\"20ms\", \"20ms\"]\n";
    let url = format!("http://rebound.example:{port}/");
    let settings = settings(&url, schedule).replace("127.0.0.0/8", "127.0.0.1/32");
    let directory = scratch();
    let server = Server::start_with(configuration(&directory, &settings), resolver.clone());
    let server = server.await.expect("it starts");
    let connect = Connect::v5("publisher");
    let mut publisher = Client::connect(server.addresses().mqtt[0], connect).await;
    publisher.publish_text("t", "outside", 1).await;
    let request = receiver.request().await;
    assert_eq!(request.header("host"), format!("rebound.example:{port}"));
    for forbidden in ["127.0.0.2", "169.254.169.254", "::ffff:127.0.0.2"] {
        *resolver.0.lock().expect("no panic") = vec![address(forbidden)];
        publisher.publish_text("t", forbidden, 1).await;
    }
    // Each is given up after three attempts.
    let dead = dead_letters(server.addresses().http[0], 3).await;
    assert!(dead.contains("allow_networks"), "{dead}");
    server.shutdown().await;
    assert_eq!(inside.connections(), 0);
    assert!(inside.arrived().is_empty() && receiver.arrived().is_empty());
}

/// A proxy that tunnels to this machine, and says what it was asked.
async fn proxy(answer: &'static str) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let (sender, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                let head = String::from_utf8(head).expect("text");
                let to = head.split(' ').nth(1).expect("a target").to_owned();
                let _ = sender.send(head);
                stream.write_all(answer.as_bytes()).await.expect("written");
                if let Some((_, port)) = to.rsplit_once(':') {
                    let there = TcpStream::connect(format!("127.0.0.1:{port}")).await;
                    if let Ok(mut there) = there {
                        let _ = copy_bidirectional(&mut stream, &mut there).await;
                    }
                }
            });
        }
    });
    (port, heads)
}

/// https goes through a tunnel of the proxy, of which the name is asked for.
#[tokio::test]
async fn https_goes_through_the_proxy() {
    let authority = Authority::new();
    let acceptor = authority.server("hook.example", &["http/1.1"], None);
    let mut receiver = Receiver::with_tls(acceptor).await;
    let (port, mut heads) = proxy("HTTP/1.1 200 Connected\r\n\r\n").await;
    let url = format!("https://hook.example:{}/", receiver.address.port());
    let ca = pem_field("ca_certificate", &authority.pem());
    let proxy = format!("webhooks.proxy = \"http://me:pass@127.0.0.1:{port}\"\n");
    let broker = Broker::with(&(proxy + &settings(&url, &ca))).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    let request = receiver.request().await;
    assert_eq!(request.data(), "hello");
    assert_eq!(request.header("proxy-authorization"), "");
    let head = heads.recv().await.expect("it was asked");
    let expected = format!(
        "CONNECT hook.example:{} HTTP/1.1\r\n",
        receiver.address.port()
    );
    assert!(head.starts_with(&expected), "{head}");
    assert!(
        head.contains("proxy-authorization: Basic bWU6cGFzcw==\r\n"),
        "{head}"
    );
}

/// http is sent to the proxy, with the whole URL.
#[tokio::test]
async fn http_is_sent_to_the_proxy() {
    let mut receiver = Receiver::start().await;
    let proxy = format!("webhooks.proxy = \"http://{}\"\n", receiver.address);
    let broker = Broker::with(&(proxy + &settings("http://hook.example/a?b", ""))).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    let request = receiver.request().await;
    assert_eq!(request.target, "http://hook.example/a?b");
    assert_eq!(request.header("host"), "hook.example");
}
