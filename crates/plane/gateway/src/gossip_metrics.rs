//! What `/metrics` says of gossip: whom it sees, what seals it, and what has gone in and out.

use std::sync::Arc;

use crate::app::App;
use crate::gossip_keys::{Gossip, HintState, KeyName, Traffic, key_text};
use crate::metrics::Text;

/// All states, with their names.
const STATES: [(HintState, &str); 4] = [
    (HintState::Alive, "alive"),
    (HintState::Suspect, "suspect"),
    (HintState::Failed, "failed"),
    (HintState::Left, "left"),
];

/// Nothing, on a server that has no gossip.
pub(crate) async fn write(app: &Arc<App>, text: &mut Text) {
    let Some(gossip) = app.config.gossip.clone() else {
        return;
    };
    let Some(traffic) = gossip.traffic().await else {
        return;
    };
    members(&*gossip, text).await;
    keys(&traffic.keys, text);
    datagrams(&traffic, text);
}

async fn members(gossip: &dyn Gossip, text: &mut Text) {
    let hints = gossip.hints().await;
    let name = "prism_gossip_members";
    text.head(
        name,
        "gauge",
        "Servers that gossip knows, this one too, by state.",
    );
    for (state, word) in STATES {
        let count = hints.iter().filter(|h| h.state == state).count();
        text.sample(name, &format!("state=\"{word}\""), count);
    }
}

fn keys(keys: &[KeyName], text: &mut Text) {
    let name = "prism_gossip_key";
    text.head(
        name,
        "gauge",
        "Keys of this server by name; 1 is the one that it seals with.",
    );
    for (at, key) in keys.iter().enumerate() {
        let labels = format!("key=\"{}\"", key_text(key));
        text.sample(name, &labels, u8::from(at == 0));
    }
}

fn datagrams(traffic: &Traffic, text: &mut Text) {
    let (sent, received) = (traffic.sent, traffic.received);
    for (name, help, out, into) in [
        (
            "prism_gossip_datagrams_total",
            "Datagrams of gossip; those that came in with the refused ones.",
            sent.0,
            received.0,
        ),
        (
            "prism_gossip_bytes_total",
            "Bytes of these datagrams.",
            sent.1,
            received.1,
        ),
    ] {
        text.head(name, "counter", help);
        text.sample(name, "direction=\"out\"", out);
        text.sample(name, "direction=\"in\"", into);
    }
    let name = "prism_gossip_refused_total";
    text.head(
        name,
        "counter",
        "Datagrams that came in and were refused, by reason.",
    );
    for (reason, count) in &traffic.refused {
        text.sample(name, &format!("reason=\"{reason}\""), count);
    }
    for (name, help, value) in [
        (
            "prism_gossip_unsent_total",
            "Datagrams that the network did not take.",
            traffic.unsent,
        ),
        (
            "prism_gossip_held_up_total",
            "Times that this server was held up, and so accused nobody.",
            traffic.held_up,
        ),
        (
            "prism_gossip_refuted_total",
            "Times that this server was said to be down, and said that it is not.",
            traffic.refuted,
        ),
    ] {
        text.single(name, "counter", help, value);
    }
}
