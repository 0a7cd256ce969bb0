//! What is changed is kept, and goes after the files; a file that is damaged is refused.

use super::*;
use crate::access::{Notify, Settings};
use crate::config::Data;

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmq-database-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        Self(folder)
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.access.hashing =
            Hashing { memory_kib: 8, iterations: 1, scram: true, scram_iterations: 4_096 };
        settings.access.database = config::Database { users_max: 2, rules_max: 2 };
        settings.storage.data = Data::Folder(self.0.clone());
        settings
    }

    fn open(&self) -> Result<Arc<Control>, String> {
        let control = Control::open(&self.settings());
        control.map(|of| of.expect("users are known")).map_err(|error| error.to_string())
    }

    fn control(&self) -> Arc<Control> {
        self.open().expect("the file is valid")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn add(name: &str, password: &str, groups: &[&str]) -> Edit {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Edit::AddUser { name: name.to_owned(), password: password.to_owned(), groups }
}

fn rule(who: &str, rule: &str, before: Option<u32>) -> Edit {
    Edit::AddRule { who: who.to_owned(), rule: rule.to_owned(), before }
}

fn is_right(control: &Control, name: &str, password: &str) -> bool {
    control.verify(name, password.as_bytes()).expect("there is memory")
}

#[test]
fn users_and_rules_are_kept_across_a_restart_and_never_with_a_password() {
    let folder = Folder::new("kept");
    let control = folder.control();
    control.change_database(add("alice", "one", &["b", "a", "b"])).expect("added");
    let first = control.change_database(rule("group a", "allow publish t/#", None));
    assert_eq!(first, Ok(Some(1)));
    assert_eq!(control.change_database(rule("everyone", "deny all #", Some(1))), Ok(Some(2)));
    for control in [control, folder.control()] {
        assert!(is_right(&control, "alice", "one") && !is_right(&control, "alice", "two"));
        let content = control.database().expect("there is one");
        assert_eq!(*content.user("alice").expect("she is there").groups, ["a".into(), "b".into()]);
        assert!(content.user("alice").expect("she is there").has_verifier());
        let numbers: Vec<u32> = content.rules().iter().map(|rule| rule.number).collect();
        assert_eq!(numbers, [2, 1]);
        assert!(control.hash_of_member("alice", "a").is_some());
        assert_eq!(control.database_counts(), (1, 2));
    }
    let text = std::fs::read_to_string(folder.0.join(FILE)).expect("it is there");
    assert!(text.contains("$argon2id$") && !text.contains("\"one\""), "{text}");
    #[cfg(unix)]
    assert!(!secret_file::is_open_to_others(&folder.0.join(FILE)));
    // The number of a removed rule means no other rule, also after a restart.
    let control = folder.control();
    control.change_database(Edit::RemoveRule { number: 2 }).expect("it is there");
    let control = folder.control();
    assert_eq!(control.change_database(rule("users", "allow all #", None)), Ok(Some(3)));
}

#[test]
fn a_change_takes_effect_at_once_and_wakes_the_cores() {
    let folder = Folder::new("live");
    let control = folder.control();
    let (sender, woken) = std::sync::mpsc::channel();
    let notify: Notify = Arc::new(move || sender.send(()).expect("the test listens"));
    let _core = control.for_core(notify);
    control.change_database(add("alice", "one", &[])).expect("added");
    let entry = |control: &Control| {
        let snapshot = control.snapshot.load();
        Arc::clone(snapshot.passwords.user("alice").expect("she is there"))
    };
    let before = entry(&control);
    let to = |password: Option<&str>, groups: Option<Vec<String>>| Edit::ChangeUser {
        name: "alice".to_owned(),
        password: password.map(str::to_owned),
        groups,
    };
    control.change_database(to(None, Some(vec!["g".to_owned()]))).expect("changed");
    assert!(control.snapshot.load().current_entry(0, "alice", &before).is_ok(), "she may stay");
    control.change_database(to(Some("one"), None)).expect("changed");
    assert!(control.snapshot.load().current_entry(0, "alice", &before).is_ok(), "she may stay");
    control.change_database(to(Some("two"), None)).expect("changed");
    assert!(is_right(&control, "alice", "two") && !is_right(&control, "alice", "one"));
    assert!(control.snapshot.load().current_entry(0, "alice", &before).is_err());
    let name = || "alice".to_owned();
    control.change_database(Edit::RemoveUser { name: name() }).expect("removed");
    assert!(!is_right(&control, "alice", "two"));
    assert_eq!(woken.try_iter().count(), 5);
    let gone = control.change_database(Edit::RemoveUser { name: name() });
    assert!(matches!(gone, Err(Refused::Unknown(_))), "{gone:?}");
    assert_eq!(woken.try_iter().count(), 0, "nothing has changed");
}

#[test]
fn a_user_of_the_password_file_goes_first() {
    let folder = Folder::new("files-first");
    let control = folder.control();
    control.change_database(add("alice", "database", &["staff"])).expect("added");
    let (mut settings, file) = (folder.settings(), folder.0.join("passwords"));
    password_file::add(&file, "alice", "file", &settings.access.hashing).expect("written");
    password_file::add(&file, "bob", "file", &settings.access.hashing).expect("written");
    settings.access.password_file = file;
    control.prepare(&settings).expect("valid").put_in_force();
    assert!(is_right(&control, "alice", "file") && !is_right(&control, "alice", "database"));
    let content = control.database().expect("there is one");
    assert!(control.is_hidden("alice", content.user("alice").expect("she is there")));
    assert!(control.hash_of_member("alice", "staff").is_none(), "her groups are hidden, too");
    let twice = control.change_database(add("bob", "x", &[]));
    assert!(
        matches!(&twice, Err(Refused::Exists(what)) if what.contains("goes first")),
        "{twice:?}"
    );
    // A reload does not lose what was changed before and after it was prepared.
    let prepared = control.prepare(&folder.settings()).expect("valid");
    control.change_database(add("carol", "c", &[])).expect("added");
    prepared.put_in_force();
    assert!(is_right(&control, "carol", "c") && is_right(&control, "alice", "database"));
}

#[test]
fn users_and_rules_are_bounded_and_checked() {
    let folder = Folder::new("bounds");
    let control = folder.control();
    let kind = |change: Edit| match control.change_database(change) {
        Ok(_) => "ok",
        Err(Refused::Wrong(_)) => "wrong",
        Err(Refused::Exists(_)) => "exists",
        Err(Refused::Full(_)) => "full",
        Err(Refused::Unknown(_)) => "unknown",
        Err(Refused::NotKept(_) | Refused::Failed(_)) => "other",
    };
    for name in ["", "#a", "a:b", "a\nb", &"a".repeat(NAME_BYTES_MAX + 1)] {
        assert_eq!(kind(add(name, "x", &[])), "wrong", "{name:?}");
    }
    assert_eq!(kind(add("a", "", &[])), "wrong");
    assert_eq!(kind(add("a", "x", &["a\"b"])), "wrong");
    let many: Vec<String> = (0..=GROUPS_MAX).map(|number| number.to_string()).collect();
    assert_eq!(kind(add("a", "x", &many.iter().map(|of| &**of).collect::<Vec<_>>())), "wrong");
    assert_eq!([kind(add("a", "x", &[])), kind(add("a", "x", &[]))], ["ok", "exists"]);
    assert_eq!([kind(add("b", "x", &[])), kind(add("c", "x", &[]))], ["ok", "full"]);
    for (who, text) in [
        ("", "allow all #"),
        ("nobody", "allow all #"),
        ("everyone", "allow"),
        ("everyone", "group a: b"),
        ("everyone", "# comment"),
        ("everyone", "allow all a/#/b"),
        ("everyone", "allow all #\nallow all #"),
        ("everyone", &format!("allow all {}", "a".repeat(RULE_BYTES_MAX))),
    ] {
        assert_eq!(kind(rule(who, text, None)), "wrong", "{who} {text}");
    }
    assert_eq!(kind(rule("everyone", "allow all #", Some(7))), "unknown");
    assert_eq!(kind(rule("group none", "allow client %u/*", None)), "ok");
    assert_eq!(kind(rule("users", "allow all #", None)), "ok");
    assert_eq!(kind(rule("users", "allow all #", None)), "full");
    let change = |text: &str| Edit::ChangeRule {
        number: 1,
        who: "anonymous".to_owned(),
        rule: text.to_owned(),
    };
    assert_eq!([kind(change("allow")), kind(change("deny all #"))], ["wrong", "ok"]);
    assert_eq!(control.database_counts(), (2, 2));
}

#[test]
fn a_damaged_database_is_refused_with_the_file_and_the_place() {
    let folder = Folder::new("damaged");
    let control = folder.control();
    control.change_database(add("alice", "one", &[])).expect("added");
    control.change_database(rule("everyone", "allow publish t", None)).expect("added");
    let file = folder.0.join(FILE);
    let text = std::fs::read_to_string(&file).expect("it is there");
    for (from, to, says) in [
        ("\"format\": 1", "\"format\": 2", "it has format 2"),
        ("$argon2id$", "$1$", "user \"alice\": a hash"),
        ("allow publish t", "allow t", "rule 1: \"allow t\", column 7"),
        ("\"last_rule\": 1", "\"last_rule\": 0", "rule 1: its number"),
        ("\"groups\"", "\"group\"", "unknown field `group`"),
        ("}\n  ],\n  \"last", "", "line"),
    ] {
        let damaged = text.replace(from, to);
        assert_ne!(damaged, text, "{from}");
        std::fs::write(&file, damaged).expect("written");
        let error = folder.open().err().expect(to);
        let name = file.display().to_string();
        assert!(error.contains(says) && error.contains(&name), "{error}");
    }
    // A file that cannot be written changes nothing.
    std::fs::write(&file, &text).expect("written");
    std::fs::create_dir(folder.0.join("users.json.new")).expect("a folder");
    let refused = control.change_database(add("bob", "x", &[]));
    assert!(matches!(refused, Err(Refused::Failed(_))), "{refused:?}");
    assert!(!is_right(&control, "bob", "x") && control.database_counts() == (1, 1));
}

#[test]
fn a_broker_without_a_folder_says_what_to_configure() {
    let folder = Folder::new("no-folder");
    let mut settings = folder.settings();
    settings.storage.data = Data::None;
    let error = Control::open(&settings).err().expect("there is no folder").to_string();
    assert!(error.contains("storage.data") && error.contains("access.database"), "{error}");
    settings.access.database = config::Database::default();
    settings.access.anonymous = crate::config::Anonymous::No;
    let control = Control::open(&settings).expect("valid").expect("nobody may connect");
    let refused = control.change_database(add("a", "x", &[]));
    assert!(matches!(&refused, Err(Refused::NotKept(what)) if what.contains("users_max")));
}

#[test]
fn rules_of_the_file_are_asked_before_those_of_the_database() {
    use crate::access::acl::{Subject, Wish};
    use crate::wire::Qos;
    let folder = Folder::new("rules-first");
    let file = folder.0.join("acl");
    std::fs::write(&file, "group g: x\nfor everyone\n deny publish secret/#\n").expect("written");
    let mut settings = folder.settings();
    settings.access.acl_file = file;
    let control = Control::open(&settings).expect("valid").expect("there are rules");
    control.change_database(add("alice", "one", &["g"])).expect("added");
    control.change_database(rule("group g", "allow publish #", None)).expect("added");
    let may = |user: &str, topic: &str| {
        let snapshot = control.snapshot.load();
        let rules = snapshot.rules.general().expect("there are rules");
        let subject = Subject { user: Some(user), client_identifier: "c" };
        let wish = Wish::Publish { topic, qos: Qos::AtMostOnce, retain: false };
        rules.decide_once(&subject, &wish).qos.is_some()
    };
    assert!(may("alice", "t") && may("x", "t"), "by the file and by the database");
    assert!(!may("alice", "secret/a") && !may("bob", "t"));
    control.change_database(Edit::RemoveRule { number: 1 }).expect("removed");
    assert!(!may("alice", "t"));
}
