//! Who leads: this server, another, or nobody that is known. Whoever needs the leader asks here at each request, because it changes.

use std::sync::Arc;

use tokio::sync::watch;

use crate::Control;

/// Who leads.
#[derive(Clone, Debug)]
pub enum Seat {
    /// This server.
    Here(Control),
    /// Another, to which members come at this address.
    There(String),
    /// Nobody, as far as this server knows.
    Nowhere,
}

/// Follows who leads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Seats {
    seat: watch::Receiver<Seat>,
    /// For a seat that never changes.
    _kept: Option<Arc<watch::Sender<Seat>>>,
}

impl Seats {
    /// What tells who leads, and those who follow it.
    pub fn new() -> (watch::Sender<Seat>, Self) {
        let (sender, seat) = watch::channel(Seat::Nowhere);
        (sender, Self { seat, _kept: None })
    }

    /// A server that leads for ever.
    pub fn fixed(control: Control) -> Self {
        let (sender, seat) = watch::channel(Seat::Here(control));
        Self {
            seat,
            _kept: Some(Arc::new(sender)),
        }
    }

    /// Who leads now.
    pub fn now(&self) -> Seat {
        self.seat.borrow().clone()
    }

    /// The leader, if it is this server.
    pub fn here(&self) -> Option<Control> {
        match &*self.seat.borrow() {
            Seat::Here(control) => Some(control.clone()),
            _ => None,
        }
    }

    /// Who leads now, and from when on [`Seats::changed`] counts.
    pub fn look(&mut self) -> Seat {
        self.seat.borrow_and_update().clone()
    }

    /// Waits for a change since the last [`Seats::look`]; for ever once nobody tells of any more.
    pub async fn changed(&mut self) {
        if self.seat.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until this server leads.
    pub async fn control(&mut self) -> Control {
        loop {
            if let Seat::Here(control) = self.look() {
                return control;
            }
            self.changed().await;
        }
    }

    /// Waits until this leader leads no more.
    pub async fn over(&self, control: &Control) {
        let mut seats = self.clone();
        loop {
            match seats.look() {
                Seat::Here(now) if now.is(control) => {}
                _ => return,
            }
            seats.changed().await;
        }
    }
}
