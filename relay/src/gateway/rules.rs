//! Rules on messages: each says which messages it is about and what is done with them. They are asked in their order;
//! what one made of a message is what the next one sees. Time is given, but for that which replacing takes.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use shared::Kind;

use super::{
    counters::Traffic,
    course::Source,
    message::{Message, Verdict},
    pattern::{Pattern, Template},
    rate::{Bucket, Rate},
    work::{Work, thread_time},
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
                    let mut work = Work::begin(thread_time, message.bytes().len());
                    match pattern.replace(message, with, self.limit, &mut work) {
                        Ok(replaced) => message = replaced,
                        Err(excess) => return Verdict::Excess(excess),
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

    use super::{super::pattern::Excess, *};

    fn rule(name: &str, matches: Option<&str>, action: Action) -> RuleSettings {
        let matches = matches.map(|text| text.parse().unwrap());
        let (from, kind, longer_than, over) = (None, None, None, Over::default());
        RuleSettings { name: name.into(), from, kind, matches, longer_than, over, action }
    }

    fn replace(name: &str, matches: &str, with: &str) -> RuleSettings {
        let with = Template::new(with, &matches.parse().unwrap()).unwrap();
        rule(name, Some(matches), Action::Replace(with))
    }

    fn close(code: u16) -> Action {
        Action::Close(Arc::new(Closing { code, reason: "why".into() }))
    }

    /// What becomes of a text, and which rules were about it.
    fn judged(rules: &Rules, from: Source, text: &str) -> (String, Vec<String>) {
        let mut asked = Vec::new();
        let (mut meters, now) = (Meters::default(), Instant::now());
        let verdict = rules.judge(from, Message::Text(text.into()), &mut meters, now, |rule| {
            asked.push(rule.name.clone());
        });
        let told = match verdict {
            Verdict::Pass(message) => String::from_utf8(message.bytes().to_vec()).unwrap(),
            Verdict::Drop => "dropped".into(),
            Verdict::Close(closing) => format!("closed {}", closing.code),
            Verdict::Excess(Excess::Length) => "too long".into(),
            Verdict::Excess(Excess::Work) => "too much work".into(),
        };
        (told, asked)
    }

    #[test]
    fn rules_are_asked_in_their_order_and_see_what_those_before_made() {
        let settings = [
            replace("first", "a", "b"),
            rule("never", Some("a"), Action::Drop),
            rule("pass", Some("^ok"), Action::Pass),
            replace("second", "b+", "c"),
            rule("close", Some("^cx"), close(4000)),
            rule("drop", Some("d"), Action::Drop),
        ];
        let rules = Rules::new(&settings, 100, None);
        let judged = |text| {
            let (told, asked) = judged(&rules, Source::Client, text);
            (told, asked.join(" "))
        };
        assert_eq!(judged("aab"), ("c".into(), "first second".into()));
        assert_eq!(judged("ok abd"), ("ok bbd".into(), "first pass".into()));
        assert_eq!(judged("ax"), ("closed 4000".into(), "first second close".into()));
        assert_eq!(judged("d"), ("dropped".into(), "drop".into()));
        assert_eq!(judged("x"), ("x".into(), String::new()));
    }

    #[test]
    fn what_passes_untouched_is_what_came() {
        let rules = Rules::new(&[replace("a", "z", "y")], 100, None);
        let verdict = rules.judge(
            Source::Client,
            Message::Text("as it is".into()),
            &mut Meters::default(),
            Instant::now(),
            |_| {},
        );
        assert!(matches!(verdict, Verdict::Pass(Message::Text(std::borrow::Cow::Borrowed("as it is")))));
    }

    #[test]
    fn a_rule_is_about_what_all_of_it_says() {
        let mut only = rule("only", None, Action::Drop);
        (only.from, only.kind, only.longer_than) = (Some(Source::Upstream), Some(Kind::Text), Some(3));
        let rules = Rules::new(&[only], 100, None);
        assert_eq!(judged(&rules, Source::Upstream, "four").0, "dropped");
        assert_eq!(judged(&rules, Source::Upstream, "xxx").0, "xxx");
        assert_eq!(judged(&rules, Source::Client, "four").0, "four");
        let binary = Message::Binary((&b"four"[..]).into());
        let verdict =
            rules.judge(Source::Upstream, binary.clone(), &mut Meters::default(), Instant::now(), |_| {});
        assert_eq!(verdict, Verdict::Pass(binary));
    }

    #[test]
    fn what_is_more_than_the_rate_is_what_the_rule_is_about() {
        let mut over = rule("over", Some("^x"), Action::Drop);
        over.over.messages = Some(Rate { per_second: 10, burst: 2 });
        over.over.bytes = Some(Rate { per_second: 1000, burst: 5 });
        let rules = Rules::new(&[over], 100, None);
        let (mut meters, begun) = (Meters::default(), Instant::now());
        let mut passes = |millis, text: &str| {
            let now = begun + Duration::from_millis(millis);
            let message = Message::Text(text.into());
            rules.judge(Source::Client, message, &mut meters, now, |_| {}) != Verdict::Drop
        };
        assert!(passes(0, "x1") && passes(0, "x2") && !passes(0, "x3"), "two at once");
        assert!(passes(0, "other"), "it is not about others, nor do they count");
        assert!(passes(100, "x"), "one more after a tenth of a second");
        assert!(!passes(300, "xxxxxx"), "and not so many bytes");
        assert!(passes(300, "xxxxx"), "which do not count as a message then");
        // Another connection has a rate of its own.
        assert_eq!(judged(&rules, Source::Client, "x1").0, "x1");
    }

    #[test]
    fn what_rules_did_is_counted_and_goes_on_by_name() {
        let drop = |name| rule(name, Some("a"), Action::Drop);
        let before = Rules::new(&[drop("one"), drop("two")], 100, None);
        judged(&before, Source::Client, "abc");
        judged(&before, Source::Upstream, "a");
        let after = Rules::new(&[drop("two"), drop("one")], 100, Some(&before));
        let told = after.report();
        assert_eq!(told[1]["name"], "one");
        assert_eq!(told[1]["from_client"], json!({ "messages": 1, "bytes": 3 }));
        assert_eq!(told[1]["from_upstream"], json!({ "messages": 1, "bytes": 1 }));
        assert_eq!(told[0]["from_client"]["messages"], 0);
    }

    #[test]
    fn what_a_rule_makes_too_long_does_not_go_on() {
        let rules = Rules::new(&[replace("longer", "a", "aaaa")], 8, None);
        assert_eq!(judged(&rules, Source::Client, "aa").0, "aaaaaaaa");
        assert_eq!(judged(&rules, Source::Client, "aaa").0, "too long");
    }
}
