//! Requests: how a table of them is declared, and who may send one.

/// One request of a kind.
pub trait Ask: Into<Self::Request> {
    /// All requests of its kind: what travels.
    type Request;
}

/// Who may send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Mounts, servers and the admin command.
    Anybody,
    /// Servers and the admin command.
    Operator,
    /// Servers.
    Server,
    /// Nobody: the leader itself proposes it.
    Leader,
}

/// Declares an enum of requests and one struct for each of them.
///
/// A row of the table is a struct and a variant of the same name that holds it;
/// the variant's number in the encoding is the row's place. So a call names its
/// fields and is passed as `impl Into<Enum>`, and the encoding is that of an
/// enum with named fields. Fields are public.
///
/// ```text
/// asks! {
///     /// What may be asked.
///     #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
///     pub enum Question {
///         /// The inode of a name.
///         Lookup { parent: Ino, name: Vec<u8> },
///         /// What statfs(2) needs.
///         StatFs,
///     }
/// }
/// ```
macro_rules! asks {
    (
        $(#[$all_attr:meta])*
        pub enum $All:ident {
            $( $(#[$attr:meta])* $Name:ident $({ $($fields:tt)* })? ),* $(,)?
        }
    ) => {
        $(#[$all_attr])*
        pub enum $All {
            $( $(#[$attr])* $Name($Name) ),*
        }

        impl $All {
            /// The names of the requests; the encoding numbers them from 0 in this order.
            pub const NAMES: &[&str] = &[$( stringify!($Name) ),*];
        }

        $(
            $crate::ask::asks!(@item [$(#[$attr])*] $Name $({ $($fields)* })?);

            impl From<$Name> for $All {
                fn from(ask: $Name) -> Self {
                    $All::$Name(ask)
                }
            }

            impl $crate::ask::Ask for $Name {
                type Request = $All;
            }
        )*
    };
    (@item [$($attr:tt)*] $Name:ident) => {
        $($attr)*
        #[derive(
            Debug, Clone, PartialEq, Eq, $crate::codec::Encode, $crate::codec::Decode,
        )]
        pub struct $Name;
    };
    (@item [$($attr:tt)*] $Name:ident {
        $( $(#[$field_attr:meta])* $field:ident: $Type:ty ),* $(,)?
    }) => {
        $($attr)*
        #[derive(
            Debug, Clone, PartialEq, Eq, $crate::codec::Encode, $crate::codec::Decode,
        )]
        pub struct $Name {
            $( $(#[$field_attr])* pub $field: $Type ),*
        }
    };
}
pub(crate) use asks;
