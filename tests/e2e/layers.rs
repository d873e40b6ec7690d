//! The order of the code, read from its files: who may use whom, what `shared` must not touch, and that every file
//! says what lives in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which modules of `relay/src` each of them may use besides itself, as the architecture page has it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("channel", &["store"]),
    ("sniff", &[]),
    ("connection", &[]),
    // Of the store only its values (a chunk, a stamp, a selection), never an engine: see the test for that.
    ("senders", &["channel", "connection", "sniff", "store", "auth", "admission"]),
    ("receivers", &["channel", "connection", "store", "auth", "admission"]),
    ("tls", &[]),
    ("gateway", &["auth", "admission", "channel", "connection", "senders", "tls"]),
    ("http", &["receivers", "gateway", "channel", "connection"]),
    ("descriptors", &[]),
    ("diagnostics", &["config"]),
    // At the door: it passes connections on to all who speak something.
    ("reception", &["channel", "connection", "descriptors", "http", "senders", "sniff"]),
    ("listener", &["reception"]),
    // What was said, by flags or a file, becomes the settings of those that own them.
    (
        "config",
        &[
            "cli",
            "store",
            "channel",
            "senders",
            "receivers",
            "http",
            "reception",
            "runtime",
            "gateway",
            "tls",
            "auth",
            "admission",
        ],
    ),
    // What a flag says is read by the same parsers as the file.
    ("cli", &["config", "store"]),
    ("runtime", &[]),
    ("ready", &["config", "reception"]),
];

/// May be used by all but the pure files.
const LEAVES: [&str; 3] = ["metrics", "shutdown", "clock"];

/// Wire the others together: they may use everything.
const WIRING: [&str; 2] = ["lib", "main"];

/// The files and folders of pure protocols: no clock, no sockets, no tasks.
const PURE: [&str; 3] = ["protocol", "framing", "sniff"];

/// The modules that know which engines there are; the others know only what every store does.
const KNOW_ENGINES: [&str; 4] = ["store", "channel", "lib", "main"];

/// What `shared` must not touch: it does no I/O and reads no clock.
const NOT_IN_SHARED: [&str; 9] = [
    "std::net",
    "std::fs",
    "std::io::",
    "std::process::Command",
    "std::thread",
    "std::env",
    "tokio",
    "SystemTime",
    "Instant",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is in the workspace").to_owned()
}

/// Every `.rs` file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The code of a file: without comments, and without its tests at the end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first names behind every `crate::` of a code, those of `crate::{a, b::{c}}` too.
fn used_modules(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            used.extend(group_heads(group));
        } else {
            used.insert(name(rest));
        }
    }
    used.retain(|name| name.chars().next().is_some_and(|c| c.is_ascii_lowercase()));
    used
}

/// The heads of the paths in a group of imports, up to its closing brace.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut at_head) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && !c.is_whitespace() => {
                heads.push(name(&group[at..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn name(text: &str) -> String {
    text.chars().take_while(|&c| c.is_ascii_alphanumeric() || c == '_').collect()
}

/// The module of `relay/src` that a file belongs to.
fn module_of(file: &Path, src: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_string_lossy().into_owned()
}

/// Whether a file is a pure protocol, or part of one.
fn is_pure(file: &Path, src: &Path) -> bool {
    let inside = file.strip_prefix(src).unwrap().with_extension("");
    inside.iter().any(|part| PURE.iter().any(|name| part == *name))
}

#[test]
fn modules_use_only_whom_they_may() {
    let src = root().join("relay/src");
    let table: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in sources(&src) {
        let module = module_of(&file, &src);
        if WIRING.contains(&module.as_str()) || LEAVES.contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!("{}: module `{module}` is not in the table", file.display()));
            continue;
        };
        let pure = is_pure(&file, &src);
        for used in used_modules(&code(&file)) {
            let leaf = LEAVES.contains(&used.as_str()) && !pure;
            if used != module && !allowed.contains(&used.as_str()) && !leaf {
                wrong.push(format!("{}: `{module}` may not use `{used}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_files_touch_no_sockets_tasks_or_clocks() {
    let mut wrong = Vec::new();
    for file in
        sources(&root().join("relay/src")).into_iter().filter(|f| PURE.iter().any(|name| f.ends_with(name)))
    {
        let code = code(&file);
        for forbidden in
            ["tokio::", "std::net::Tcp", "std::io::", "SystemTime", "Instant::now", "async fn", ".await"]
        {
            if code.contains(forbidden) {
                wrong.push(format!("{}: {forbidden}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_channel_and_the_wiring_know_engines() {
    let src = root().join("relay/src");
    let mut wrong = Vec::new();
    for file in sources(&src).into_iter().filter(|f| !KNOW_ENGINES.contains(&module_of(f, &src).as_str())) {
        let code = code(&file);
        for engine in ["memory::Memory", "store::memory"] {
            if code.contains(engine) {
                wrong.push(format!("{}: {engine}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn shared_does_no_io_and_reads_no_clock() {
    let mut wrong = Vec::new();
    for file in sources(&root().join("shared/src")) {
        let code = code(&file);
        wrong.extend(
            NOT_IN_SHARED.iter().filter(|f| code.contains(*f)).map(|f| format!("{}: {f}", file.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn clients_know_the_protocol_and_not_the_relay() {
    for package in ["send-client", "recv-client", "shared"] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        assert!(!manifest.lines().any(|line| line.starts_with("relay")), "{package} depends on the relay");
    }
}

#[test]
fn every_file_begins_with_what_lives_there() {
    let mut wrong = Vec::new();
    for package in ["shared", "relay", "send-client", "recv-client", "tests"] {
        for file in sources(&root().join(package)) {
            if !fs::read_to_string(&file).unwrap().starts_with("//! ") {
                wrong.push(file.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "without `//!` at the top:\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let code = "use crate::store::chunk::Chunk;\nuse crate::{\n    channel::{hub::Hub, view},\n    senders,\n};\n\
                fn f() { crate::metrics::count() }\nuse crate::Relay;";
    let used: Vec<String> = used_modules(code).into_iter().collect();
    assert_eq!(used, ["channel", "metrics", "senders", "store"]);
}
