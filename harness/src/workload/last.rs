use std::cell::RefCell;
use std::rc::Rc;

/// The last that was made of what takes much memory or time: cases that share it follow each other.
pub struct Last<Key, Value>(RefCell<Option<(Key, Rc<Value>)>>);

impl<Key, Value> Default for Last<Key, Value> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<Key: PartialEq, Value> Last<Key, Value> {
    /// The value of `key`, made anew unless it is the last one.
    pub fn get(&self, key: Key, make: impl FnOnce() -> Value) -> Rc<Value> {
        let mut last = self.0.borrow_mut();
        if let Some((_, value)) = last.as_ref().filter(|(last, _)| *last == key) {
            return value.clone();
        }
        // The old one goes before the new one comes.
        *last = None;
        let value = Rc::new(make());
        *last = Some((key, value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_is_kept() {
        let last = Last::default();
        let first = last.get(1, || "one");
        assert_eq!(*last.get(1, || unreachable!()), "one");
        assert_eq!(*last.get(2, || "two"), "two");
        assert_eq!((*last.get(1, || "one again"), Rc::strong_count(&first)), ("one again", 1));
    }
}
