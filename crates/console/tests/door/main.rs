//! The console's door over real connections: who comes in, who does not, and that nothing changed for who does not.

mod admitted;
mod listening;
mod refused;
mod slow;
mod world;
