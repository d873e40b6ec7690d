//! The laws of `auto`, under a virtual clock.

use super::laws::{Given, Sender, message};

#[test]
fn auto_gives_one_message_for_each_of_ten_readings_a_second() {
    let mut sender = Sender::new("auto", 1 << 20);
    let mut due = Vec::new();
    for n in 0..50 {
        let reading = format!("{}.5", 1000 + n);
        sender.write(&reading).wait(100);
        due.push(reading);
        assert_eq!(sender.given.is_empty(), n < 9, "undecided for a second, then each at once");
        if !sender.given.is_empty() {
            assert_eq!(sender.messages(), std::mem::take(&mut due));
        }
        assert!(!sender.framer.holds_back());
    }
}

#[test]
fn auto_gives_a_reading_to_a_sender_that_waits_for_it() {
    let mut sender = Sender::new("auto", 1 << 20);
    sender.write("21.5").wait(1499);
    assert!(sender.given.is_empty());
    sender.wait(1);
    assert_eq!(sender.messages(), ["21.5"]);
    for reading in ["21.6", "21.7"] {
        sender.write(reading).wait(20);
        assert_eq!(sender.messages(), [reading]);
    }
}

#[test]
fn auto_gives_lines_also_when_one_arrives_in_pieces_a_second_apart() {
    let mut sender = Sender::new("auto", 1 << 20);
    sender.write("hel").wait(1000).write("l").wait(1100).write("o").wait(950).write("\r\nwor");
    assert_eq!(sender.messages(), ["hello"]);
    assert!(sender.framer.holds_back());
    sender.wait(5000).write("ld").wait(5000).write("\n\nlast").end();
    assert_eq!(sender.messages(), ["world", "", "last"]);
}

#[test]
fn auto_gives_lines_also_when_the_first_is_typed_key_by_key() {
    let mut sender = Sender::new("auto", 1 << 20);
    for key in ["h", "e", "l", "l", "o", "\n"] {
        sender.write(key).wait(150);
    }
    assert_eq!(sender.messages(), ["hello"]);
}

#[test]
fn auto_does_not_wait_for_ever_for_a_slow_sender() {
    let mut sender = Sender::new("auto", 1 << 20);
    for reading in ["a", "b", "c", "d"] {
        sender.write(reading).wait(1200);
    }
    sender.write("e").wait(200);
    assert_eq!(sender.messages(), ["a", "b", "c", "d", "e"]);
    sender.write("f").wait(20);
    assert_eq!(sender.messages(), ["f"]);
}

#[test]
fn auto_takes_a_newline_for_lines_even_after_readings_while_all_is_printable() {
    let mut sender = Sender::new("auto", 1 << 20);
    sender.write("prompt> ").wait(2000);
    sender.write("one\ntw").wait(2000).write("o\n");
    assert_eq!(sender.messages(), ["prompt> ", "one", "two"]);
    let mut sender = Sender::new("auto", 1 << 20);
    sender.write("\u{1}").wait(2000).write("one\ntwo\n").wait(20);
    assert_eq!(sender.messages(), ["\u{1}", "one\ntwo\n"]);
}

#[test]
fn auto_knows_readings_that_are_not_text_at_once() {
    let mut sender = Sender::new("auto", 1 << 20);
    for reading in ["\0\u{1}", "\n\0", "ab\n"] {
        sender.write(reading).wait(20);
        assert_eq!(sender.messages(), [reading]);
    }
}

#[test]
fn auto_keeps_a_burst_of_any_bytes_whole() {
    let bytes: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let printable = vec![b'x'; 200_000];
    let mut text_first = b"GIF\nheader\n".to_vec();
    text_first.extend_from_slice(&bytes);
    for burst in [&bytes, &printable, &text_first] {
        let mut sender = Sender::new("auto", 1 << 20);
        for read in burst.chunks(65_536) {
            sender.write(read).wait(19);
        }
        sender.end();
        assert_eq!(sender.given, [message(burst)]);
        let mut sender = Sender::new("auto", 150_000);
        for read in burst.chunks(65_536) {
            sender.write(read);
        }
        sender.wait(5000);
        assert_eq!(sender.given, [Given::Cut(burst[..150_000].to_vec()), message(&burst[150_000..])]);
    }
}

#[test]
fn auto_gives_what_it_held_when_the_sender_ends() {
    let mut sender = Sender::new("auto", 1 << 20);
    sender.write("a").wait(100).write("b").write("c").end().end();
    assert_eq!(sender.messages(), ["a", "bc"]);
    sender = Sender::new("auto", 1 << 20);
    sender.write("a\nb").end();
    assert_eq!(sender.messages(), ["a", "b"]);
    sender = Sender::new("auto", 1 << 20);
    sender.end();
    assert_eq!(sender.messages(), Vec::<String>::new());
}
