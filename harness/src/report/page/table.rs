use maud::{Markup, html};

/// A table with these heads. On a phone every row is a block of its own, with the heads beside its cells.
pub fn table(heads: &[&str], rows: impl Iterator<Item = Vec<Markup>>) -> Markup {
    html! {
        div.scroll {
            table.stacked {
                thead { tr { @for head in heads { th { (head) } } } }
                tbody {
                    @for cells in rows {
                        tr {
                            @for (index, (head, cell)) in heads.iter().zip(cells).enumerate() {
                                @if index == 0 { th { (cell) } } @else { td data-head=(head) { span { (cell) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}
