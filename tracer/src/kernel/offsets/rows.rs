//! What a row of the table becomes: a field of [`super::KernelOffsets`], and its lookup.

macro_rules! kind {
    (bits) => {
        BitOffset
    };
    ($other:ident) => {
        u32
    };
}

macro_rules! applies {
    ($btf:ident) => {
        true
    };
    ($btf:ident if $marker:literal) => {
        lookup::exists($btf, $marker)
    };
    ($btf:ident unless $marker:literal) => {
        !lookup::exists($btf, $marker)
    };
}

macro_rules! offsets {
    ($($(#[$group_doc:meta])* $group:ident: $Group:ident {
        $($(#[$doc:meta])* $field:ident: $kind:ident($($place:literal)|+) => $feature:ident $([$($when:tt)+])?,)*
    })*) => {
        $(
            $(#[$group_doc])*
            #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
            pub struct $Group { $($(#[$doc])* pub $field: Option<kind!($kind)>,)* }
        )*

        /// Offsets in bytes unless a field says otherwise; `None` where this kernel has no such field.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct KernelOffsets { $($(#[$group_doc])* pub $group: $Group,)* }

        pub(super) fn resolve(btf: &Btf) -> (KernelOffsets, Vec<OffsetRow>) {
            let mut rows = Vec::new();
            let offsets = KernelOffsets { $($group: $Group { $(
                $field: lookup::row(
                    btf,
                    &mut rows,
                    lookup::$kind,
                    (concat!(stringify!($group), ".", stringify!($field)), &[$($place),+], Feature::$feature),
                    applies!(btf $($($when)+)?),
                ),
            )* },)* };
            (offsets, rows)
        }
    };
}
