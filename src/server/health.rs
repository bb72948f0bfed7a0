//! grpc.health.v1 by the letter of its proto: probes, load balancers and meshes ask it whether to send calls here.
//!
//! It answers before, during and after the gate closes, so that `NOT_SERVING` can be heard. A Watch hears of the drain
//! and then ends with DRAINING, so that no probe holds the shutdown up.

use std::{collections::HashMap, convert::identity, pin::Pin};

use futures_util::{Stream, StreamExt as _, future, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    pb::{
        bucket_service_server::SERVICE_NAME,
        health::{
            HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
            health_check_response::ServingStatus, health_server,
        },
    },
    service::status::{Failure, Reason, quoted},
};

/// The server as a whole, and its one service. They are healthy together.
const SERVICES: [&str; 2] = ["", SERVICE_NAME];

/// The health of the server; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Health {
    draining: watch::Sender<bool>,
}

impl Health {
    /// Serving, from now on.
    pub(super) fn new() -> Self {
        Self { draining: watch::Sender::new(false) }
    }

    /// `NOT_SERVING` for ever.
    pub(super) fn drain(&self) {
        self.draining.send_replace(true);
    }

    fn status(&self) -> ServingStatus {
        if *self.draining.borrow() { ServingStatus::NotServing } else { ServingStatus::Serving }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            let words = format!("no service has the name {}", quoted(&service));
            return Err(Failure::new(Reason::ServiceUnknown, words).into());
        }
        Ok(Response::new(self.status().into()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let status = HealthCheckResponse::from(self.status());
        let statuses = HashMap::from(SERVICES.map(|service| (service.to_owned(), status)));
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.into_inner().service.as_str());
        let mut draining = self.draining.subscribe();
        let now = if known { self.status() } else { ServingStatus::ServiceUnknown };

        let first = stream::iter([Ok(now.into())]);
        let rest = stream::once(async move {
            // An error means that the server is gone, and with it this stream.
            drop(draining.wait_for(|draining| *draining).await);
            let news = (now == ServingStatus::Serving).then(|| Ok(ServingStatus::NotServing.into()));
            let end = Err(Failure::new(Reason::Draining, "the server is draining").into());
            stream::iter([news, Some(end)]).filter_map(future::ready)
        });
        Ok(Response::new(Box::pin(first.chain(rest.flat_map(identity)))))
    }
}

impl From<ServingStatus> for HealthCheckResponse {
    fn from(status: ServingStatus) -> Self {
        Self { status: status.into() }
    }
}
