//! A small XML tree that can be changed and written. NOT a general XML library: no comments, no processing instructions,
//! no document types, attributes without namespaces.

use std::fmt::Write;

use hypervisor::HypervisorError;

/// Longest definition; libvirt itself takes 4 MiB in one message, ordinary ones have 10 KiB.
const LENGTH_MAX: usize = 2 << 20;
/// Most elements, attributes and texts together; a definition with a hundred disks has some ten thousand.
const NODES_MAX: u32 = 200_000;
/// Deepest nesting; libvirt's own definitions have less than ten levels.
const DEPTH_MAX: usize = 32;

/// An element.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    /// Namespace, for what lies in `<metadata>` or belongs to QEMU.
    pub(crate) namespace: Option<String>,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) content: Vec<Content>,
}

/// What is inside of an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    Element(Element),
    Text(String),
}

impl Element {
    /// An empty element.
    pub(crate) fn new(name: &str) -> Element {
        Element { name: name.to_owned(), ..Element::default() }
    }

    /// The same element with one more attribute.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Element {
        self.set(name, value);
        self
    }

    /// The same element with one more child.
    pub(crate) fn holding(mut self, child: Element) -> Element {
        self.push(child);
        self
    }

    /// The same element with a text in it.
    pub(crate) fn saying(mut self, text: &str) -> Element {
        self.content = vec![Content::Text(text.to_owned())];
        self
    }

    /// Value of an attribute.
    pub(crate) fn get(&self, attribute: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == attribute).map(|(_, value)| value.as_str())
    }

    /// Adds or replaces an attribute.
    pub(crate) fn set(&mut self, attribute: &str, value: &str) {
        self.unset(attribute);
        self.attributes.push((attribute.to_owned(), value.to_owned()));
    }

    /// Removes an attribute.
    pub(crate) fn unset(&mut self, attribute: &str) {
        self.attributes.retain(|(name, _)| name != attribute);
    }

    /// Adds a child at the end.
    pub(crate) fn push(&mut self, child: Element) {
        self.content.push(Content::Element(child));
    }

    /// Child elements without a namespace of their own.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Element> {
        self.content.iter().filter_map(|content| match content {
            Content::Element(element) => Some(element),
            Content::Text(_) => None,
        })
    }

    /// Child elements, to change them.
    pub(crate) fn children_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.content.iter_mut().filter_map(|content| match content {
            Content::Element(element) => Some(element),
            Content::Text(_) => None,
        })
    }

    /// Children of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children().filter(move |child| child.name == name && child.namespace.is_none())
    }

    /// First child of that name.
    pub(crate) fn child<'a>(&'a self, name: &'a str) -> Option<&'a Element> {
        self.all(name).next()
    }

    /// First child of that name, to change it.
    pub(crate) fn child_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.children_mut().find(|child| child.name == name && child.namespace.is_none())
    }

    /// Follows names of children, each the first of its name.
    pub(crate) fn find<'a>(&'a self, path: &[&'a str]) -> Option<&'a Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// Attribute of a child.
    pub(crate) fn child_attribute<'a>(&'a self, child: &'a str, attribute: &str) -> Option<&'a str> {
        self.child(child)?.get(attribute)
    }

    /// Removes all children of that name.
    pub(crate) fn remove(&mut self, name: &str) {
        self.retain(|child| child.name != name);
    }

    /// Keeps only some of the children; texts stay.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Element) -> bool) {
        self.content.retain(|content| match content {
            Content::Element(element) => keep(element),
            Content::Text(_) => true,
        });
    }

    /// All text directly inside, without spaces around.
    pub(crate) fn text(&self) -> String {
        let texts = self.content.iter().filter_map(|content| match content {
            Content::Text(text) => Some(text.as_str()),
            Content::Element(_) => None,
        });
        texts.collect::<String>().trim().to_owned()
    }

    /// The element as text, two spaces per level.
    pub(crate) fn to_xml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0, None);
        out
    }

    fn write(&self, out: &mut String, depth: usize, namespace: Option<&str>) {
        let own = self.namespace.as_deref();
        out.push('<');
        out.push_str(&self.name);
        if own != namespace {
            attribute(out, "xmlns", own.unwrap_or_default());
        }
        for (name, value) in &self.attributes {
            attribute(out, name, value);
        }
        if self.content.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        let plain = self.content.iter().any(|content| matches!(content, Content::Text(_)));
        for content in &self.content {
            match content {
                Content::Text(text) => escape(out, text, false),
                Content::Element(element) => {
                    if !plain {
                        line(out, depth + 1);
                    }
                    element.write(out, depth + 1, own);
                }
            }
        }
        if !plain {
            line(out, depth);
        }
        let _ = write!(out, "</{}>", self.name);
    }

    /// The same element with attributes sorted, for comparisons.
    pub(crate) fn sorted(mut self) -> Element {
        self.attributes.sort();
        self.content = std::mem::take(&mut self.content)
            .into_iter()
            .map(|content| match content {
                Content::Element(element) => Content::Element(element.sorted()),
                Content::Text(text) => Content::Text(text.trim().to_owned()),
            })
            .collect();
        self
    }
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

fn attribute(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, " {name}='");
    escape(out, value, true);
    out.push('\'');
}

fn escape(out: &mut String, text: &str, in_attribute: bool) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' if in_attribute => out.push_str("&apos;"),
            // A parser makes spaces of these in attributes, and of line ends everywhere.
            '\n' | '\t' if in_attribute => {
                let _ = write!(out, "&#{};", letter as u32);
            }
            '\r' => out.push_str("&#13;"),
            _ => out.push(letter),
        }
    }
}

/// Reads a document. Document types are refused, so there are no entities that grow.
pub(crate) fn parse(text: &str) -> Result<Element, HypervisorError> {
    let refuse = |reason: String| HypervisorError::Definition { reason };
    if text.len() > LENGTH_MAX {
        return Err(refuse(format!("it has {} bytes, at most {LENGTH_MAX} are accepted", text.len())));
    }
    let options = roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX };
    let document = roxmltree::Document::parse_with_options(text, options)
        .map_err(|error| refuse(format!("it is no XML: {error}")))?;
    convert(document.root_element(), 0)
        .ok_or_else(|| refuse(format!("it is nested deeper than {DEPTH_MAX} levels")))
}

/// None when it is nested too deeply.
fn convert(node: roxmltree::Node<'_, '_>, depth: usize) -> Option<Element> {
    if depth > DEPTH_MAX {
        return None;
    }
    let plain = node.attributes().filter(|attribute| attribute.namespace().is_none());
    let mut element = Element {
        name: node.tag_name().name().to_owned(),
        // xmlns='' means none.
        namespace: node.tag_name().namespace().filter(|space| !space.is_empty()).map(str::to_owned),
        attributes: plain.map(|a| (a.name().to_owned(), a.value().to_owned())).collect(),
        content: Vec::new(),
    };
    for child in node.children() {
        if child.is_element() {
            element.push(convert(child, depth + 1)?);
        } else if let (true, Some(text)) = (child.is_text(), child.text())
            && !text.trim().is_empty()
        {
            element.content.push(Content::Text(text.to_owned()));
        }
    }
    Some(element)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn what_is_written_is_read_back_with_any_letters() {
        proptest!(|(name in any::<String>(), value in any::<String>())| {
            let printable = |text: &str| -> String {
                text.chars().filter(|c| !c.is_control() || "\n\t\r".contains(*c)).filter(|c| !"\u{fffe}\u{ffff}".contains(*c)).collect()
            };
            let mut tree = Element::new("domain").with("a", &printable(&value));
            let text = printable(&name);
            if !text.trim().is_empty() {
                tree.push(Element::new("name").saying(&text));
            }
            assert_eq!(parse(&tree.to_xml()).unwrap(), tree);
        });
    }

    #[test]
    fn metadata_keeps_its_namespace() {
        let text = "<d><m><x:os xmlns:x='http://x' id='1'><x:a/><b/></x:os></m></d>";
        let tree = parse(text).unwrap();
        assert_eq!(parse(&tree.to_xml()).unwrap(), tree);
        assert!(tree.to_xml().contains("<os xmlns='http://x' id='1'>"), "{}", tree.to_xml());
    }

    #[test]
    fn bombs_are_refused() {
        let entities = "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><d>&b;</d>";
        let deep = "<d>".repeat(DEPTH_MAX + 2) + &"</d>".repeat(DEPTH_MAX + 2);
        let wide = format!("<d>{}</d>", "<a/>".repeat(NODES_MAX as usize));
        let long = format!("<d>{}</d>", "a".repeat(LENGTH_MAX));
        for bomb in [entities, &deep, &wide, &long] {
            assert!(parse(bomb).is_err());
        }
    }
}
