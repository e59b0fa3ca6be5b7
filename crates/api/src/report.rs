//! An operation as Markdown, for the runbook. Pure.
