//! delay LISTEN_PORT TARGET_PORT MILLISECONDS
//!
//! Hands on what it is sent, each way half of the round trip later. What is on the way is not bounded: a network of
//! this length would hold it as well. Two threads for each direction of a connection, of which there are few: threads
//! sleep to within some 50 µs, where timers of an asynchronous runtime round to milliseconds.

use anyhow::Context;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

const CHUNK: usize = 64 << 10;

/// Bytes, and when they arrive on the other side.
type Parcel = (Instant, Vec<u8>);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target, milliseconds] = arguments.as_slice() else {
        anyhow::bail!("usage: delay LISTEN_PORT TARGET_PORT MILLISECONDS");
    };
    let one_way = Duration::from_secs_f64(milliseconds.parse::<f64>()? / 2000.0);
    let target: u16 = target.parse()?;
    let listener = TcpListener::bind(("127.0.0.1", listen.parse()?))?;
    loop {
        let (near, _) = listener.accept()?;
        let far = TcpStream::connect(("127.0.0.1", target)).context("the target")?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        carry(near.try_clone()?, far.try_clone()?, one_way);
        carry(far, near, one_way);
    }
}

/// One direction, until it is closed.
fn carry(from: TcpStream, to: TcpStream, one_way: Duration) {
    let (sender, receiver) = channel();
    thread::spawn(move || take(from, &sender, one_way));
    thread::spawn(move || hand_on(&receiver, to));
}

fn take(mut from: TcpStream, sender: &Sender<Parcel>, one_way: Duration) {
    let mut buffer = vec![0; CHUNK];
    // An error here is a connection that is gone, as is one on the other side.
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now() + one_way, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn hand_on(receiver: &Receiver<Parcel>, mut to: TcpStream) {
    while let Ok((due, bytes)) = receiver.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // That one side has closed is handed on too; a side that is gone needs no telling.
    let _ = to.shutdown(Shutdown::Both);
}
