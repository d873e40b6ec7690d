//! What the rules for channels mean together.

use std::time::Duration;

use shared::ChannelPattern;

use super::Settling;
use crate::{
    channel::LagPolicy,
    config::{
        Config, DEFAULT_BLOCK, DEFAULT_FLUSH, any_channel,
        raw::{Keeping, Lag, Raw, RawRule},
        report::Mistake,
    },
    store::{Durability, Retention},
};

impl Settling<'_> {
    /// What a rule does not say is as in the rule for `**`, which comes last.
    pub(super) fn settle_rules(&mut self, config: &mut Config, raw: &Raw) {
        for (index, rule) in raw.rules.iter().enumerate() {
            let earlier =
                raw.rules[..index].iter().find(|earlier| covers(&earlier.pattern.value, &rule.pattern.value));
            if let Some(earlier) = earlier {
                let message = format!(
                    "this rule is never reached: the one for `{}`{} comes before it",
                    earlier.pattern.value,
                    self.in_line(&earlier.pattern.by)
                );
                self.mistakes
                    .push(Mistake::by(rule.pattern.by.clone(), message).label("move it up, or remove it"));
            }
        }
        let any = any_channel();
        let memory = config.store.memory;
        let last = raw.rules.iter().find(|rule| rule.pattern.value == any);
        let mut kept = config.store.retention.first().map_or(
            Retention { bytes: memory, messages: None, age: None },
            |(_, kept)| Retention { bytes: kept.bytes.min(memory), ..*kept },
        );
        if raw.data.is_some() {
            kept.bytes = 1 << 30;
        }
        let (mut lag, mut durability) = (LagPolicy::Skip, Durability::Sync);
        if let Some(rule) = last {
            (kept, lag) = (retention(rule, kept), self.lag(rule, lag));
            durability = self.durability(rule, durability, raw.data.is_some());
        }
        if let Some(history) = &raw.history {
            kept = history.value;
        }
        let others = raw.rules.iter().filter(|rule| rule.pattern.value != any);
        let rules: Vec<_> = others
            .map(|rule| {
                let durability = self.durability(rule, durability, raw.data.is_some());
                (rule.pattern.value.clone(), retention(rule, kept), self.lag(rule, lag), durability)
            })
            .chain([(any.clone(), kept, lag, durability)])
            .collect();
        // On a disk a channel may keep more than there is memory.
        if !raw.wrong.contains(&"memory") && raw.data.is_none() {
            let flag = raw.history.as_ref().map(|said| (said.value.bytes, &said.by));
            let last = last.filter(|_| flag.is_none());
            let files = raw.rules.iter().filter(|rule| rule.pattern.value != any).chain(last);
            let said = files.filter_map(|rule| rule.history.as_ref()).map(|said| (said.value, &said.by));
            for (bytes, by) in said.chain(flag).filter(|(bytes, _)| *bytes > memory) {
                self.too_much(by, "history", bytes, memory);
            }
        }
        config.lag = rules.iter().map(|(pattern, _, lag, _)| (pattern.clone(), *lag)).collect();
        config.store.durability =
            rules.iter().map(|(pattern, _, _, durability)| (pattern.clone(), *durability)).collect();
        config.store.retention = rules.into_iter().map(|(pattern, kept, ..)| (pattern, kept)).collect();
    }

    fn durability(&mut self, rule: &RawRule, inherited: Durability, on_disk: bool) -> Durability {
        let (inherited_keeping, inherited_flush) = match inherited {
            Durability::Memory => (Keeping::Memory, DEFAULT_FLUSH),
            Durability::Sync => (Keeping::Sync, DEFAULT_FLUSH),
            Durability::Async { flush } => (Keeping::Async, flush),
        };
        if let Some(said) = rule.durability.as_ref().filter(|_| !on_disk) {
            let message = "`durability` is for a relay with `data`, which this one has not";
            let mistake = Mistake::by(said.by.clone(), message);
            self.mistakes.push(mistake.label("remove it, or say data = \"DIR\" or --data DIR"));
        }
        let keeping = rule.durability.as_ref().map_or(inherited_keeping, |said| said.value);
        if let Some(flush) =
            rule.flush.as_ref().filter(|_| keeping != Keeping::Async && !rule.wrong_durability)
        {
            let message = "`flush` is for durability = \"async\", which this [[channel]] has not";
            self.mistakes.push(
                Mistake::by(flush.by.clone(), message).label("remove it, or set durability = \"async\""),
            );
        }
        match keeping {
            Keeping::Memory => Durability::Memory,
            Keeping::Sync => Durability::Sync,
            Keeping::Async => Durability::Async {
                flush: rule.flush.as_ref().map_or(inherited_flush, |said| Duration::from_micros(said.value)),
            },
        }
    }

    fn lag(&mut self, rule: &RawRule, inherited: LagPolicy) -> LagPolicy {
        let (inherited_lag, inherited_wait) = match inherited {
            LagPolicy::Skip => (Lag::Skip, DEFAULT_BLOCK),
            LagPolicy::Close => (Lag::Close, DEFAULT_BLOCK),
            LagPolicy::Block(wait) => (Lag::Block, wait),
        };
        let lag = rule.lag.unwrap_or(inherited_lag);
        if let Some(block_for) = rule.block_for.as_ref().filter(|_| lag != Lag::Block && !rule.wrong_lag) {
            let message = "`block_for` is for lag = \"block\", which this [[channel]] has not";
            self.mistakes
                .push(Mistake::by(block_for.by.clone(), message).label("remove it, or set lag = \"block\""));
        }
        match lag {
            Lag::Skip => LagPolicy::Skip,
            Lag::Close => LagPolicy::Close,
            Lag::Block => LagPolicy::Block(
                rule.block_for.as_ref().map_or(inherited_wait, |said| Duration::from_micros(said.value)),
            ),
        }
    }
}

fn retention(rule: &RawRule, inherited: Retention) -> Retention {
    Retention {
        bytes: rule.history.as_ref().map_or(inherited.bytes, |said| said.value),
        messages: rule.messages.map_or(inherited.messages, |messages| (messages > 0).then_some(messages)),
        age: rule.age.map_or(inherited.age, |age| (age > 0).then(|| Duration::from_micros(age))),
    }
}

/// Whether every channel that the second pattern matches is matched by the first.
fn covers(wide: &ChannelPattern, narrow: &ChannelPattern) -> bool {
    let mut narrow = narrow.as_str().split('/');
    for wide in wide.as_str().split('/') {
        let Some(narrow) = narrow.next() else { return false };
        match (wide, narrow) {
            ("**", _) => return true,
            (_, "**") => return false,
            ("*", _) => {}
            _ if wide == narrow => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::ChannelId;

    use super::*;

    fn pattern() -> impl Strategy<Value = ChannelPattern> {
        let segment = prop_oneof![Just("a"), Just("b"), Just("*")];
        (proptest::collection::vec(segment, 1..4), any::<bool>()).prop_map(|(mut segments, deep)| {
            if deep {
                segments.push("**");
            }
            segments.join("/").parse().unwrap()
        })
    }

    proptest! {
        #[test]
        fn a_rule_that_covers_another_matches_all_of_its_channels(
            wide in pattern(),
            narrow in pattern(),
            channel in "[ab](/[ab]){0,4}",
        ) {
            let channel: ChannelId = channel.parse().unwrap();
            if covers(&wide, &narrow) && narrow.matches(&channel) {
                prop_assert!(wide.matches(&channel));
            }
            prop_assert!(covers(&wide, &wide) && covers(&any_channel(), &wide));
        }
    }
}
