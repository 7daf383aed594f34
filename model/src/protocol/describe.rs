//! Actions in words, for traces.

use super::Action;
use super::world::{Answer, Call, Reply, World};

pub(super) fn describe(before: &World, action: Action, after: &World) -> String {
    let mut words = describe_action(before, action, after);
    for (request, (old, new)) in before.answers.iter().zip(&after.answers).enumerate() {
        if let Some(answer) = new.filter(|_| old != new) {
            let answer = name(answer);
            words.extend([
                "; the caller of request ",
                &request.to_string(),
                " is answered ",
                answer,
            ]);
        }
    }
    for (request, _) in (0_u8..).zip(&before.answers) {
        let (old, new) = (before.jobs(request).len(), after.jobs(request).len());
        if old != new {
            let change = format!("; request {request} has {new} jobs, before {old}");
            words.push_str(&change);
        }
    }
    words
}

fn describe_action(before: &World, action: Action, after: &World) -> String {
    match action {
        Action::Tick => format!("time passes: moment {}", after.now),
        Action::Start(batch) => format!("batch {batch} is started"),
        Action::Connect { process, server } => {
            format!("process {process} connects to server {server}")
        }
        Action::Send { delivery, connection } => sent(after, delivery, Some(connection)),
        Action::SendAlone { delivery, .. } => sent(after, delivery, None),
        Action::GiveUp(delivery) => format!("delivery {delivery} is given up"),
        Action::Arrive(connection) => arrived(after, connection),
        Action::ArriveLate(position) => {
            let call = before.held.get(position).and_then(|held| held.calls.first());
            format!(
                "a call of a lost connection is executed: {}",
                call.map_or_else(String::new, called)
            )
        }
        Action::Receive(connection) => received(before, connection),
        Action::Replicated(delivery) => format!("the replica has the jobs of delivery {delivery}"),
        Action::NotReplicated(delivery) => {
            format!("the replica does not have the jobs of delivery {delivery} in time")
        }
        Action::Replicate => "the replica receives everything".to_owned(),
        Action::Lose(connection) => format!("connection {connection} is lost"),
        Action::SetForward => "the clock of the primary is set forward".to_owned(),
        Action::SetBack => "the clock of the primary is set back".to_owned(),
        Action::FailOver => format!("server {} becomes the primary", after.primary),
        Action::Forget => "all records are removed".to_owned(),
        Action::Refuse(None) => "the primary is full".to_owned(),
        Action::Refuse(Some(command)) => format!("the primary refuses {command:?}"),
        Action::Accept => "the primary accepts everything".to_owned(),
        Action::Shift(connection) => format!("a reply on connection {connection} is swallowed"),
        Action::Restart(process) => format!("process {process} is killed and starts again"),
    }
}

fn sent(after: &World, id: u8, connection: Option<u8>) -> String {
    let Some(delivery) = after.deliveries.get(&id) else {
        return format!("delivery {id} is given up");
    };
    let number = delivery.number.unwrap_or_default();
    let requests = &delivery.requests;
    let over =
        connection.map_or_else(|| "its own connection".to_owned(), |id| format!("connection {id}"));
    format!("delivery {id} of requests {requests:?} is sent as number {number} over {over}")
}

fn arrived(after: &World, id: u8) -> String {
    let connection = after.connections.get(&id);
    let server = connection.map_or(0, |connection| connection.server);
    let reply = connection.and_then(|connection| connection.replies.last());
    let reply = reply.map_or_else(String::new, replied);
    format!("server {server} executes a call of connection {id}: {reply}")
}

fn received(before: &World, id: u8) -> String {
    let reply = before.connections.get(&id).and_then(|connection| connection.replies.first());
    format!("a reply is read from connection {id}: {}", reply.map_or_else(String::new, replied))
}

fn called(call: &Call) -> String {
    let kind = if call.is_withdrawal { "the withdrawal" } else { "an attempt" };
    format!("{kind} number {} of requests {:?}", call.number, call.requests)
}

fn replied(reply: &Reply) -> String {
    match &reply.result {
        Ok(result) => format!("\"{} {} {result}\"", reply.number, reply.clock),
        Err(true) => "READONLY".to_owned(),
        Err(false) => "an error".to_owned(),
    }
}

fn name(answer: Answer) -> &'static str {
    match answer {
        Answer::Accepted { repeats: None, .. } => "202",
        Answer::Accepted { .. } => "202, replayed",
        Answer::KeyReused => "422",
        Answer::Nothing => "503 none",
        Answer::Unknown => "503 unknown",
        Answer::Unanswered => "nothing",
    }
}
