//! Rules on messages: each says which messages it is about and what is done with them. They are asked in their order;
//! what one made of a message is what the next one sees. Pure: time is given.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use shared::Kind;

use super::{
    counters::Traffic,
    course::Source,
    messages::{Message, Verdict},
    pattern::{Pattern, Template},
    rate::{Bucket, Rate},
};

/// A rule. It is about the messages for which all that it says holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSettings {
    /// What it is called; no two of a route are called the same.
    pub name: String,
    /// Whose messages; none: both sides'.
    pub from: Option<Source>,
    /// Text or binary; none: both.
    pub kind: Option<Kind>,
    /// What they have somewhere.
    pub matches: Option<Pattern>,
    /// They have more bytes than this.
    pub longer_than: Option<usize>,
    /// They are more of a connection's one side, of those for which all the rest holds.
    pub over: Over,
    /// What is done with them.
    pub action: Action,
}

/// What is more than a connection's one side may send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Over {
    /// Messages.
    pub messages: Option<Rate>,
    /// Bytes.
    pub bytes: Option<Rate>,
}

/// What is done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It goes on, and no further rule is asked.
    Pass,
    /// It does not go on.
    Drop,
    /// The connection is closed.
    Close(Arc<Closing>),
    /// What matches is replaced.
    Replace(Template),
}

/// How a connection is closed by a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The code that both sides are told.
    pub code: u16,
    /// The text.
    pub reason: String,
}

/// The rules of a route, and what they did.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// Bytes that a message may have.
    limit: usize,
}

#[derive(Debug)]
struct Rule {
    settings: RuleSettings,
    done: Arc<Done>,
}

/// The messages that a rule was about.
#[derive(Debug, Default)]
struct Done {
    from_client: Traffic,
    from_upstream: Traffic,
}

/// What rules remember of one side of a connection: a place for each of them that is about more than may come.
#[derive(Debug, Default)]
pub struct Meters(Vec<Option<Meter>>);

#[derive(Debug, Clone, Copy)]
struct Meter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Over {
    /// Whether anything is too much.
    pub fn is_said(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }
}

impl RuleSettings {
    /// Whether it is about such a message, as far as the message itself tells.
    fn is_about(&self, from: Source, message: &Message<'_>) -> bool {
        self.from.is_none_or(|whose| whose == from)
            && self.kind.is_none_or(|kind| kind == message.kind())
            && self.longer_than.is_none_or(|longest| message.bytes().len() > longest)
            && self.matches.as_ref().is_none_or(|pattern| pattern.is_in(message))
    }
}

impl Rules {
    /// Rules for messages of at most `limit` bytes; of those called the same in `before` it goes on what they did.
    pub fn new(settings: &[RuleSettings], limit: usize, before: Option<&Self>) -> Self {
        let known = |name: &str| {
            let before = before.map(|before| before.rules.as_slice()).unwrap_or_default();
            before.iter().find(|rule| rule.settings.name == name).map(|rule| Arc::clone(&rule.done))
        };
        let rule = |settings: &RuleSettings| Rule {
            done: known(&settings.name).unwrap_or_default(),
            settings: settings.clone(),
        };
        Self { rules: settings.iter().map(rule).collect(), limit }
    }

    /// What becomes of a message that came at this time; `asked` is told which rules were about it.
    pub fn judge<'a>(
        &self,
        from: Source,
        message: Message<'a>,
        meters: &mut Meters,
        now: Instant,
        mut asked: impl FnMut(&RuleSettings),
    ) -> Verdict<'a> {
        let mut message = message;
        for (index, Rule { settings, done }) in self.rules.iter().enumerate() {
            let bytes = message.bytes().len() as u64;
            if !settings.is_about(from, &message)
                || (settings.over.is_said() && !meters.is_over(index, settings.over, bytes, now))
            {
                continue;
            }
            done.of(from).add(1, bytes);
            asked(settings);
            match &settings.action {
                Action::Pass => return Verdict::Pass(message),
                Action::Drop => return Verdict::Drop,
                Action::Close(closing) => return Verdict::Close(Arc::clone(closing)),
                Action::Replace(with) => {
                    let Some(pattern) = &settings.matches else { continue };
                    match pattern.replace(message, with, self.limit) {
                        Some(replaced) => message = replaced,
                        None => return Verdict::TooLong,
                    }
                }
            }
        }
        Verdict::Pass(message)
    }

    /// What they did, as JSON.
    pub fn report(&self) -> Value {
        let told = |rule: &Rule| {
            json!({
                "name": rule.settings.name,
                "action": rule.settings.action.word(),
                "from_client": rule.done.from_client.report(),
                "from_upstream": rule.done.from_upstream.report(),
            })
        };
        self.rules.iter().map(told).collect()
    }
}

impl Action {
    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Close(_) => "close",
            Self::Replace(_) => "replace",
        }
    }
}

impl Done {
    fn of(&self, from: Source) -> &Traffic {
        match from {
            Source::Client => &self.from_client,
            Source::Upstream => &self.from_upstream,
        }
    }
}

impl Meters {
    /// Whether a message is more than the rule of this number lets come. If not, it has come.
    fn is_over(&mut self, rule: usize, over: Over, bytes: u64, now: Instant) -> bool {
        if self.0.len() <= rule {
            self.0.resize(rule + 1, None);
        }
        let meter = self.0[rule].get_or_insert_with(|| {
            let bucket = |rate: Option<Rate>| rate.map(|rate| Bucket::new(rate, now));
            Meter { messages: bucket(over.messages), bytes: bucket(over.bytes) }
        });
        let mut both = [(&mut meter.messages, 1), (&mut meter.bytes, bytes)];
        let has = |(bucket, much): &mut (&mut Option<Bucket>, u64)| {
            bucket.as_mut().is_none_or(|bucket| bucket.has(*much, now))
        };
        // What is dropped for the bytes it has does not count as a message, nor the other way round.
        if !both.iter_mut().all(has) {
            return true;
        }
        for (bucket, much) in both {
            if let Some(bucket) = bucket {
                bucket.take(much);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A rule that is about everything.
    fn rule(name: &str, action: Action) -> RuleSettings {
        RuleSettings {
            name: name.into(),
            from: None,
            kind: None,
            matches: None,
            longer_than: None,
            over: Over::default(),
            action,
        }
    }

    fn replace(name: &str, pattern: &str, with: &str) -> RuleSettings {
        let pattern: Pattern = pattern.parse().unwrap();
        let with = Template::new(with, &pattern).unwrap();
        RuleSettings { matches: Some(pattern), ..rule(name, Action::Replace(with)) }
    }

    /// What becomes of texts of one side, all at one time, and which rules were about each.
    fn judged(rules: &Rules, from: Source, texts: &[&str]) -> Vec<(String, Vec<String>)> {
        let (mut meters, now) = (Meters::default(), Instant::now());
        let judge = |text: &&str| {
            let mut asked = Vec::new();
            let tell = |rule: &RuleSettings| asked.push(rule.name.clone());
            let told = match rules.judge(from, Message::Text((*text).into()), &mut meters, now, tell) {
                Verdict::Pass(message) => String::from_utf8(message.bytes().to_vec()).unwrap(),
                Verdict::Drop => "(dropped)".into(),
                Verdict::Close(closing) => format!("(closed {})", closing.code),
                Verdict::TooLong => "(too long)".into(),
            };
            (told, asked)
        };
        texts.iter().map(judge).collect()
    }

    fn told(text: &str, asked: &[&str]) -> (String, Vec<String>) {
        (text.into(), asked.iter().map(|name| (*name).into()).collect())
    }

    #[test]
    fn rules_are_asked_in_their_order_and_see_what_those_before_made() {
        let closing = Arc::new(Closing { code: 4000, reason: String::new() });
        let rules = Rules::new(
            &[
                RuleSettings { matches: Some("^keep".parse().unwrap()), ..rule("keep", Action::Pass) },
                replace("mask", "a+", "b"),
                RuleSettings { matches: Some("bb".parse().unwrap()), ..rule("drop", Action::Drop) },
                RuleSettings { longer_than: Some(6), ..rule("close", Action::Close(closing)) },
            ],
            100,
            None,
        );
        let texts = ["keep aab", "aa", "aabc", "no more of it"];
        let expected = [
            told("keep aab", &["keep"]),
            told("b", &["mask"]),
            told("(dropped)", &["mask", "drop"]),
            told("(closed 4000)", &["close"]),
        ];
        assert_eq!(judged(&rules, Source::Client, &texts), expected);
    }

    #[test]
    fn a_rule_is_about_a_message_only_if_all_that_it_says_holds() {
        let both = RuleSettings {
            from: Some(Source::Upstream),
            kind: Some(Kind::Text),
            matches: Some("a".parse().unwrap()),
            longer_than: Some(2),
            ..rule("all", Action::Drop)
        };
        let rules = Rules::new(&[both], 100, None);
        let names = |judged: Vec<(String, Vec<String>)>| {
            judged.into_iter().map(|(_, asked)| asked.len()).collect::<Vec<_>>()
        };
        assert_eq!(names(judged(&rules, Source::Upstream, &["abc", "ab", "bcd"])), [1, 0, 0]);
        assert_eq!(names(judged(&rules, Source::Client, &["abc"])), [0]);
        let binary = Message::Binary((&b"abc"[..]).into());
        let verdict =
            rules.judge(Source::Upstream, binary.clone(), &mut Meters::default(), Instant::now(), |_| {});
        assert_eq!(verdict, Verdict::Pass(binary));
    }

    #[test]
    fn what_is_over_a_rate_is_what_comes_of_one_side_beyond_it() {
        let over = Over {
            messages: Some(Rate { per_second: 10, burst: 3 }),
            bytes: Some(Rate { per_second: 100, burst: 10 }),
        };
        let rules = Rules::new(&[RuleSettings { over, ..rule("rate", Action::Drop) }], 100, None);
        let (mut up, mut down, begun) = (Meters::default(), Meters::default(), Instant::now());
        let passes = |meters: &mut Meters, millis, text: &str| {
            let now = begun + Duration::from_millis(millis);
            let verdict =
                rules.judge(Source::Client, Message::Text(text.to_owned().into()), meters, now, |_| {});
            matches!(verdict, Verdict::Pass(_))
        };
        assert!(passes(&mut up, 0, "12345678"));
        assert!(!passes(&mut up, 0, "123"), "bytes");
        assert!(passes(&mut up, 0, "1") && passes(&mut up, 0, "2"), "what was dropped does not count");
        assert!(!passes(&mut up, 0, ""), "messages");
        assert!(passes(&mut down, 0, "12345678"), "the other side has its own");
        assert!(passes(&mut up, 100, ""), "after a while");
    }

    #[test]
    fn each_rule_counts_what_it_was_about_and_goes_on_counting_when_rules_change() {
        let drop = RuleSettings { matches: Some("a".parse().unwrap()), ..rule("drop", Action::Drop) };
        let first = Rules::new(std::slice::from_ref(&drop), 100, None);
        judged(&first, Source::Client, &["aaa", "b"]);
        let new = RuleSettings { kind: Some(Kind::Binary), ..rule("new", Action::Pass) };
        let second = Rules::new(&[new, drop], 100, Some(&first));
        judged(&first, Source::Upstream, &["a"]);
        let nothing = json!({ "messages": 0, "bytes": 0 });
        let expected = json!([
            { "name": "new", "action": "pass", "from_client": nothing, "from_upstream": nothing },
            {
                "name": "drop",
                "action": "drop",
                "from_client": { "messages": 1, "bytes": 3 },
                "from_upstream": { "messages": 1, "bytes": 1 },
            },
        ]);
        assert_eq!(second.report(), expected);
    }

    #[test]
    fn a_replacement_that_is_too_long_is_none() {
        let rules = Rules::new(&[replace("grow", "a", "aaaa")], 8, None);
        let expected = [told("aaaaaaaa", &["grow"]), told("(too long)", &["grow"])];
        assert_eq!(judged(&rules, Source::Client, &["aa", "aaa"]), expected);
    }
}
