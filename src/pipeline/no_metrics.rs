//! The same as `metrics` without the feature: nothing is counted.

use std::convert::Infallible;
use std::sync::Arc;

use crate::error::ErrorKind;
use crate::limits::Side;
use crate::model::OperationStatus;
use crate::pipeline::Pipeline;
use crate::pipeline::config::ExportConfig;
use crate::pipeline::observer::Resumption;

pub(super) fn operation_accepted() {}

pub(super) fn operation_started(_: Option<Resumption>) {}

pub(super) fn operation_paused() {}

pub(super) fn operation_ended(_: OperationStatus) {}

#[derive(Debug)]
pub(super) struct FailingSide;

impl FailingSide {
    pub(super) fn new(_: Side) -> Self {
        Self
    }
}

#[derive(Debug, Default)]
pub(super) struct TransferMetrics;

pub(super) struct Timer;

impl TransferMetrics {
    pub(super) fn start(&self) -> Timer {
        Timer
    }

    pub(super) fn instance_finished(&self, _: Timer) {}

    pub(super) fn batch_finished(&self, _: Timer) {}

    pub(super) fn skipped(&self, _: ErrorKind) {}

    pub(super) fn not_listed(&self, _: usize) {}
}

#[derive(Debug, Clone, Default)]
pub(super) struct SharedMetrics;

pub(super) struct PipelineMetrics {
    pub(super) transfers: Arc<TransferMetrics>,
}

impl PipelineMetrics {
    pub(super) fn new(config: &ExportConfig, _: &str) -> Self {
        let SharedMetrics = config.metrics;
        Self { transfers: Arc::default() }
    }
}

pub(crate) struct RunMetrics;

impl RunMetrics {
    pub(crate) fn new(pipeline: Arc<Pipeline>) -> Self {
        let PipelineMetrics { .. } = pipeline.metrics;
        Self
    }

    pub(crate) async fn run(&mut self) -> Infallible {
        std::future::pending().await
    }

    #[cfg(feature = "restate")]
    pub(crate) fn update(&mut self) {}
}
