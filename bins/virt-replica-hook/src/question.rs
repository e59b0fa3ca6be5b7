//! The arguments: which VM, and whether it is about to start at all.

/// A start that libvirt asks about.
pub(crate) struct Question {
    /// The VM's name.
    pub(crate) name: String,
}

impl Question {
    /// Reads `OBJECT OPERATION …`; none when nothing is being started, and when it is not understood.
    ///
    /// At `reconnect` above all there is no question: a hook that fails there makes libvirt kill a VM that runs.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Option<Question> {
        let (name, operation) = (arguments.next()?, arguments.next()?);
        match operation.as_str() {
            "prepare" | "start" | "migrate" | "restore" => Some(Question { name }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Question;

    #[test]
    fn only_what_starts_a_vm_is_a_question() {
        let asks = |words: &str| Question::read(words.split_whitespace().map(str::to_owned)).is_some();
        for words in ["vm prepare begin -", "vm start begin -", "vm migrate begin -", "vm restore begin -"] {
            assert!(asks(words), "{words}");
        }
        let others = [
            "vm reconnect begin -",
            "vm started begin -",
            "vm stopped end -",
            "vm release end -",
            "vm new",
            "vm",
            "",
        ];
        for words in others {
            assert!(!asks(words), "{words}");
        }
    }
}
