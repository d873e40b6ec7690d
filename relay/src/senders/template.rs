//! Which channel a raw sender publishes to: a name, or a template of who it is and where it came in.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use shared::{ChannelId, channel_id::NameError};

/// The name of a channel in which `{peer_ip}`, `{peer_port}`, `{local_port}` and `{sni}` may stand for what
/// holds on a connection. The text around them is valid; what comes in may not be, see
/// [`resolve`](Self::resolve).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    PeerIp,
    PeerPort,
    LocalPort,
    Sni,
}

/// Why a text is no template of a channel's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// What stands around the placeholders can't be part of a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not one of the placeholders.
    #[error("`{{{0}}}` is not known; there are {{peer_ip}}, {{peer_port}}, {{local_port}} and {{sni}}")]
    Unknown(String),
    /// `{` without its `}`; where, in characters from 1.
    #[error("the `{{` at position {0} is not closed")]
    Open(usize),
}

impl ChannelTemplate {
    /// The channel, if there is no placeholder.
    pub fn as_channel(&self) -> Option<ChannelId> {
        match self.parts.as_slice() {
            [Part::Text(text)] => text.parse().ok(),
            _ => None,
        }
    }

    /// The channel of a connection. An IPv4 address that came in over IPv6 is written as IPv4; the server name
    /// in lower case; without one (no TLS, or a client that sends none) it is `-`.
    ///
    /// # Errors
    /// If what came in makes no valid name: the whole is too long, or the server name, which the peer chooses,
    /// has a character that names can't have, or a `/`, which would make segments of its own.
    pub fn resolve(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        sni: Option<&str>,
    ) -> Result<ChannelId, NameError> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Placeholder(Placeholder::PeerIp) => name.push_str(&canonical(peer.ip())),
                Part::Placeholder(Placeholder::PeerPort) => name.push_str(&peer.port().to_string()),
                Part::Placeholder(Placeholder::LocalPort) => name.push_str(&local.port().to_string()),
                Part::Placeholder(Placeholder::Sni) => {
                    let sni = sni.filter(|sni| !sni.is_empty()).unwrap_or("-");
                    if let Some(slash) = sni.chars().position(|character| character == '/') {
                        let position = name.chars().count() + slash + 1;
                        return Err(NameError::Character { character: '/', position });
                    }
                    name.push_str(&sni.to_ascii_lowercase());
                }
            }
        }
        name.parse()
    }
}

impl From<ChannelId> for ChannelTemplate {
    fn from(channel: ChannelId) -> Self {
        Self { parts: vec![Part::Text(channel.as_str().to_owned())] }
    }
}

impl FromStr for ChannelTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        // The name with every placeholder replaced by as many letters, so that positions in errors hold.
        let mut sample = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            sample.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                return Err(TemplateError::Open(sample.chars().count() + 1));
            };
            let placeholder = Placeholder::ALL.into_iter().find(|placeholder| placeholder.name() == name);
            let placeholder = placeholder.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
            sample.extend(std::iter::repeat_n('x', name.len() + 2));
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Placeholder(placeholder));
            rest = after;
        }
        sample.push_str(rest);
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        sample.parse::<ChannelId>()?;
        Ok(Self { parts })
    }
}

impl fmt::Display for ChannelTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Placeholder(placeholder) => write!(f, "{{{}}}", placeholder.name()),
        })
    }
}

impl Placeholder {
    const ALL: [Self; 4] = [Self::PeerIp, Self::PeerPort, Self::LocalPort, Self::Sni];

    const fn name(self) -> &'static str {
        match self {
            Self::PeerIp => "peer_ip",
            Self::PeerPort => "peer_port",
            Self::LocalPort => "local_port",
            Self::Sni => "sni",
        }
    }
}

fn canonical(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolve(template: &str, peer: &str, sni: Option<&str>) -> Result<String, NameError> {
        let template: ChannelTemplate = template.parse().unwrap();
        let channel = template.resolve(peer.parse().unwrap(), "127.0.0.1:7000".parse().unwrap(), sni)?;
        Ok(channel.as_str().to_owned())
    }

    #[test]
    fn placeholders_stand_for_what_holds_on_the_connection() {
        let all = "dev/{peer_ip}/{peer_port}-{local_port}/{sni}";
        assert_eq!(resolve(all, "10.0.0.7:4001", None).unwrap(), "dev/10.0.0.7/4001-7000/-");
        assert_eq!(resolve("{peer_ip}", "[fe80::1]:1", None).unwrap(), "fe80::1");
        assert_eq!(resolve("{peer_ip}", "[::ffff:10.0.0.7]:1", None).unwrap(), "10.0.0.7");
        assert_eq!(resolve("tls/{sni}", "10.0.0.7:1", Some("Box.Example")).unwrap(), "tls/box.example");
        assert_eq!(resolve("tls/{sni}", "10.0.0.7:1", Some("")).unwrap(), "tls/-");
    }

    #[test]
    fn a_server_name_can_not_leave_its_segment() {
        let error = NameError::Character { character: '/', position: 6 };
        assert_eq!(resolve("tls/{sni}", "10.0.0.7:1", Some("a/b")), Err(error));
        assert_eq!(resolve("tls/{sni}", "10.0.0.7:1", Some("..")), Err(NameError::DotSegment("..")));
        assert!(resolve("tls/{sni}", "10.0.0.7:1", Some("a b")).is_err());
        assert_eq!(resolve("tls/{sni}", "10.0.0.7:1", Some(&"x".repeat(252))), Err(NameError::TooLong(256)));
    }

    #[test]
    fn a_template_says_what_is_wrong_and_where() {
        let error = |text: &str| text.parse::<ChannelTemplate>().unwrap_err().to_string();
        assert_eq!(error(""), "it is empty");
        assert_eq!(error("{sni}/a b"), "a space is not allowed at position 8");
        assert_eq!(error("a/{peer_ip"), "the `{` at position 3 is not closed");
        assert_eq!(error("a}"), "`}` is not allowed at position 2");
        assert_eq!(error("a/../{sni}"), "a segment may not be `..`");
        assert_eq!(error("a//{sni}"), "the segment at position 3 is empty");
        assert_eq!(
            error("{host}"),
            "`{host}` is not known; there are {peer_ip}, {peer_port}, {local_port} and {sni}"
        );
    }

    #[test]
    fn a_template_without_placeholders_is_a_channel() {
        let channel = |text: &str| text.parse::<ChannelTemplate>().unwrap().as_channel();
        assert_eq!(channel("a/b"), Some("a/b".parse().unwrap()));
        assert_eq!(channel("{sni}"), None);
        let template = ChannelTemplate::from("a/b".parse::<ChannelId>().unwrap());
        assert_eq!(Ok(template), "a/b".parse());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_prints_as_it_was_read(text in "(\\{(sni|peer_ip|x)?\\}?|[a-z/ .]|\\PC){0,8}") {
            if let Ok(template) = text.parse::<ChannelTemplate>() {
                prop_assert_eq!(template.to_string(), text);
            }
        }

        #[test]
        fn any_address_makes_a_name(ip: IpAddr, port: u16) {
            let template: ChannelTemplate = "{peer_ip}/{peer_port}".parse().unwrap();
            let local = SocketAddr::new(ip, 1);
            prop_assert!(template.resolve(SocketAddr::new(ip, port), local, None).is_ok());
        }
    }
}
