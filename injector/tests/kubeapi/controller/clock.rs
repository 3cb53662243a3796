//! A controller whose clock is wrong, by minutes and by a day.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::json;

use super::super::programs::faketime;
use super::super::server::Server;
use super::control::{Control, Shop, intercept};

#[test]
fn wrong_clock_is_told_and_changes_nothing() {
    let shop = Shop::on(Arc::new(Control::start(Server::bare())), "clock");
    shop.create("bob", &intercept("bob", "bob"));
    shop.until("bob", "Programmed", "True Programmed");
    let bobs = |shop: &Shop| shop.get("bob").expect("it is there")["status"].clone();
    let (status, text) = (bobs(&shop), shop.text());
    let faketime = faketime();
    let library = faketime.to_str().expect("a path");
    let shifts = [
        ("+5m", 300),
        ("-5m", -300),
        ("+1d", 86_400),
        ("-1d", -86_400),
    ];
    for (number, (shift, seconds)) in shifts.into_iter().enumerate() {
        shop.control.stop();
        let variables = [
            ("LD_PRELOAD", library),
            ("FAKETIME", shift),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let server = shop.server();
        let misled = server.controller_with(&server.account(), &variables);
        let name = format!("alice-{number}");
        shop.create("alice", &intercept(&name, "alice"));
        let message = shop.until(&name, "Programmed", "False ClockSkew");
        let said = message.split_once("differ by ");
        let said = said.and_then(|(_, rest)| rest.split(' ').next()?.parse::<i64>().ok());
        let ahead = -said.unwrap_or_else(|| panic!("{shift}: {message}"));
        assert!((ahead - seconds).abs() < 10, "{shift}: {message}");
        let there = shop.get(&name).expect("it is there")["status"].clone();
        assert_eq!(
            there["expires"],
            json!(null),
            "{shift}: no lease is counted"
        );
        assert_eq!(
            (bobs(&shop), shop.text()),
            (status.clone(), text.clone()),
            "{shift}"
        );
        misled.signal(Signal::KILL);
        misled.end();
        // Nothing of it lasts.
        shop.server().start_controller();
        shop.until(&name, "Programmed", "True Programmed");
        shop.must("alice", &["delete", "intercept", &name], None);
        shop.wait("it is gone", || {
            (shop.text() == text)
                .then_some(())
                .ok_or_else(|| shop.text())
        });
        assert_eq!(bobs(&shop)["expires"], status["expires"], "{shift}");
    }
}
