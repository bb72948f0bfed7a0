//! A Pipeline as a question and its answers: a message of requests, then what became of each.

use std::time::Duration;

use futures_util::stream;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, Streaming};

use crate::{
    client::{
        error::{Error, refusal},
        options::Options,
    },
    pb::{
        PipelineOp, PipelineRequest, PipelineResponse,
        pipeline_op::Op,
        pipeline_result::Result::{self as Answer, Error as Refusal},
    },
};

pub(super) struct Pipeline {
    /// Holds one message: the next is sent when the one before is answered.
    requests: mpsc::Sender<PipelineRequest>,
    answers: Streaming<PipelineResponse>,
    timeout: Duration,
}

impl Pipeline {
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let (requests, mut waiting) = mpsc::channel(1);
        let stream = stream::poll_fn(move |cx| waiting.poll_recv(cx));
        let mut client = options.connect().await?;
        let answers = within(options.timeout, client.pipeline(stream)).await?.into_inner();
        Ok(Self { requests, answers, timeout: options.timeout })
    }

    /// Sends requests in one message, and waits for the answer to each, in their order. An error means that it is not known
    /// what became of them, and that the pipeline is no more.
    pub(super) async fn run(&mut self, ops: Vec<Op>) -> Result<Vec<Result<Answer, Status>>, Error> {
        let count = ops.len();
        let mut answers = Vec::with_capacity(count);
        if count > 0 {
            let ops = ops.into_iter().map(|op| PipelineOp { op: Some(op), ..PipelineOp::default() }).collect();
            self.requests.send(PipelineRequest { ops }).await.ok(); // where nobody takes it, the answers say why
        }
        while answers.len() < count {
            let Some(response) = within(self.timeout, self.answers.message()).await? else {
                return Err(Status::unavailable("the server ended the pipeline").into());
            };
            answers.extend(response.results.into_iter().map(|result| match result.result {
                Some(Refusal(status)) => Err(refusal(&status)),
                Some(answer) => Ok(answer),
                None => Err(Status::internal("an answer of a kind that this pail does not know")),
            }));
        }
        Ok(answers)
    }
}

/// Waits so long for an answer.
pub(super) async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Error> {
    let answer = timeout(limit, answer).await;
    Ok(answer.map_err(|_| Status::deadline_exceeded(format!("silent for {limit:?}")))??)
}
