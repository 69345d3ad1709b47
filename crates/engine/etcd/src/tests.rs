//! Large commits stopped at each of their steps, which only this crate can do one by one.

use std::sync::Arc;

use prism_store::{Batch, KeyRange, Revision, Table};
use prism_types::Fence;

use crate::client::Client;
use crate::config::Config;
use crate::engine::{Engine, Mode};
use crate::json::Operations;
use crate::large::Form;
use crate::layout::{Change, Layout, Parts, Stage, What};
use crate::mirror::{Entry, Mirror, Position};
use crate::{load, open};

#[path = "../tests/kit/mod.rs"]
mod kit;

/// An engine without its tasks: nothing goes on by itself.
async fn engine(config: &Config) -> Arc<Engine> {
    let client = Client::new(config).unwrap();
    let layout = Layout::new(&config.prefix);
    let (table, position): (Table, Position) =
        load::state(&client, &layout, config.window).await.unwrap();
    let mirror = Mirror::new(config.window, table, position);
    Arc::new(Engine::new(client, config.clone(), mirror, None))
}

fn batch() -> Batch {
    (0..3000).fold(Batch::new().delete("old"), |batch, n| {
        batch.put(format!("k/{n:04}"), vec![7; 900])
    })
}

async fn prepared(engine: &Engine, fence: Fence) -> (Parts, Vec<Change>) {
    match engine.prepare(fence, &batch()).await.unwrap() {
        Form::Staged(parts, changes) => (parts, changes),
        other => panic!("{other:?} is no stage"),
    }
}

/// The steps of a large commit up to the nth; 0: only its pieces, 1: it is durable, more: some of it is in its keys.
async fn stopped_after(config: &Config, steps: usize) {
    let engine = engine(config).await;
    let leadership = engine.take().await.unwrap();
    let held = engine.may_write(leadership.fence).unwrap();
    assert_eq!(*engine.mode.borrow(), Mode::Lead);
    let (parts, changes) = prepared(&engine, leadership.fence).await;
    if steps == 0 {
        return engine.resign().await;
    }
    let (version, mut head) = engine.next_head();
    head.revision += 1;
    head.what = What::Staged;
    let stage = Stage {
        parts,
        revision: head.revision,
        done: 0,
    };
    head.pending = Some(stage);
    let entry = Entry {
        version,
        head,
        batches: vec![batch()],
        parted: Vec::new(),
    };
    engine
        .propose(held, Operations::default(), entry)
        .await
        .unwrap();
    let mut next = Some(stage);
    for _ in 1..steps {
        let stage = next.expect("there are more steps");
        next = engine.step(held, stage, &changes, &[]).await.unwrap();
    }
    engine.resign().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_large_commit_leaves_what_the_next_leader_goes_on_with() {
    if !kit::has_etcd() {
        return;
    }
    let etcd = kit::Etcd::start(&[]);
    for steps in 0..=4 {
        let prefix = format!("p{steps}");
        let config = etcd.config(&prefix);
        let before = open(config.clone()).await.unwrap();
        let fence = prism_store::Store::lead(&*before).await.unwrap().fence;
        let first = Batch::new().put("old", "x");
        prism_store::Store::commit(&*before, fence, first)
            .await
            .unwrap();
        before.resign().await;
        stopped_after(&config, steps).await;

        // Who opens it, who followed, and who leads next see the same: all of it, or nothing.
        let (revision, keys) = if steps == 0 { (1, 1) } else { (2, 3000) };
        let fresh = open(config.clone()).await.unwrap();
        for store in [&before, &fresh] {
            let page = prism_store::Store::range(&**store, KeyRange::all(), None, 10_000);
            let page = page.await.unwrap();
            assert_eq!(
                (page.revision, page.items.len()),
                (Revision(revision), keys),
                "{steps} steps"
            );
            assert!(
                page.items
                    .iter()
                    .all(|item| item.revision == Revision(revision))
            );
        }
        kit::lead(&fresh).await;
        let found = etcd.ctl(&[
            "get",
            &format!("/{prefix}/keys/"),
            "--prefix",
            "--keys-only",
        ]);
        assert_eq!(
            found.lines().filter(|line| !line.is_empty()).count(),
            keys,
            "{steps} steps"
        );
        let left = etcd.ctl(&[
            "get",
            &format!("/{prefix}/parts/"),
            "--prefix",
            "--keys-only",
        ]);
        assert!(left.trim().is_empty(), "{steps} steps left pieces: {left}");
        let after = open(config).await.unwrap();
        let page = prism_store::Store::range(&*after, KeyRange::all(), None, 10_000)
            .await
            .unwrap();
        assert_eq!(page.items.len(), keys);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_who_does_not_sit_there_any_more_is_refused_by_etcd_itself() {
    if !kit::has_etcd() {
        return;
    }
    let etcd = kit::Etcd::start(&[]);
    // Nothing tells this engine that its seat is gone: its tasks do not run.
    let engine = engine(&etcd.config("p")).await;
    let leadership = engine.take().await.unwrap();
    let held = engine.may_write(leadership.fence).unwrap();
    etcd.ctl(&["del", "/p/leader"]);
    assert!(engine.may_write(leadership.fence).is_ok());
    let mut operations = Operations::default();
    operations.put(
        &engine.layout.key(b"a"),
        &[&crate::layout::before_value(1), b"x"],
        0,
    );
    let (version, mut head) = engine.next_head();
    head.revision += 1;
    let entry = Entry {
        version,
        head,
        batches: vec![Batch::new().put("a", "x")],
        parted: Vec::new(),
    };
    let error = engine.propose(held, operations, entry).await.unwrap_err();
    assert_eq!(error.outcome(), prism_types::Outcome::NotApplied);
    assert!(engine.may_write(leadership.fence).is_err());
    assert!(
        etcd.ctl(&["get", "/p/keys/a", "--keys-only"])
            .trim()
            .is_empty()
    );
    // Pieces are held to the same.
    let again = engine.take().await.unwrap();
    etcd.ctl(&["del", "/p/leader"]);
    let refused = engine.prepare(again.fence, &batch()).await.unwrap_err();
    assert_eq!(refused.outcome(), prism_types::Outcome::NotApplied);
    assert!(
        etcd.ctl(&["get", "/p/parts/", "--prefix", "--keys-only"])
            .trim()
            .is_empty()
    );
}
