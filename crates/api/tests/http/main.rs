//! Client and router over a real unix socket, and the router as a browser's request meets it.

mod document;
mod recorder;
mod round_trip;
mod rules;
