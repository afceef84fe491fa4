//! Requests and their answers: how tables of them are declared, and who may send one.

use crate::error::Refusal;

/// A request whose answer has a type of its own.
///
/// What travels is [`Ask::Request`] and [`Ask::Reply`], enums over all requests and all
/// answers of one kind. Whoever asks gets the answer's own type.
pub trait Ask: Into<Self::Request> {
    /// All requests of its kind.
    type Request;
    /// All answers to requests of its kind.
    type Reply;
    /// The answer to this request.
    type Answer: Part<Self::Reply>;

    /// Returns the reply that carries an answer to this request.
    fn reply(&self, answer: Self::Answer) -> Self::Reply {
        answer.wrap()
    }
}

/// One of the answers that a reply may carry.
pub trait Part<Whole>: Sized {
    /// Returns the reply that carries it.
    fn wrap(self) -> Whole;

    /// Takes it out of a reply; `None` if the reply carries another kind of answer.
    fn unwrap(reply: Whole) -> Option<Self>;
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

impl std::fmt::Display for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Asker::Anybody => "anybody",
            Asker::Operator => "servers and the admin command",
            Asker::Server => "servers",
            Asker::Leader => "the leader itself",
        })
    }
}

/// Declares an enum of requests, and for each of them a struct and the type of its answer.
///
/// A row of the table is a struct and a variant of the same name that holds it; the
/// variant's number in the encoding is the row's place. So a call names its fields and is
/// passed as `impl Into<Enum>`, and the encoding is that of an enum with named fields.
/// Fields are public.
///
/// With `in Whole` after its name, the enum is a variant of `Whole`, which can be made
/// from each row too.
///
/// ```text
/// asks! {
///     /// What may be asked.
///     #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
///     pub enum Question -> Reply {
///         /// The inode of a name.
///         Lookup { parent: Ino, name: Vec<u8> } -> Attr,
///         /// What statfs(2) needs.
///         StatFs -> FsStat,
///     }
/// }
/// ```
macro_rules! asks {
    (
        $(#[$all_attr:meta])*
        pub enum $All:ident in $Whole:ident -> $Reply:ident { $($rows:tt)* }
    ) => {
        $crate::ask::asks!(@all [$(#[$all_attr])*] $All $Reply [$Whole] $($rows)*);
    };
    (
        $(#[$all_attr:meta])*
        pub enum $All:ident -> $Reply:ident { $($rows:tt)* }
    ) => {
        $crate::ask::asks!(@all [$(#[$all_attr])*] $All $Reply [] $($rows)*);
    };
    (@all [$($all_attr:tt)*] $All:ident $Reply:ident $whole:tt
        $( $(#[$attr:meta])* $Name:ident $({ $($fields:tt)* })? -> $Answer:ty ),* $(,)?
    ) => {
        $($all_attr)*
        pub enum $All {
            $( $(#[$attr])* $Name($Name) ),*
        }

        impl $All {
            /// The names of the requests; the encoding numbers them from 0 in this order.
            pub const NAMES: &[&str] = &[$( stringify!($Name) ),*];

            /// Returns its place in [`Self::NAMES`].
            pub fn number(&self) -> usize {
                enum Place { $( $Name ),* }
                match self {
                    $( $All::$Name(_) => Place::$Name as usize ),*
                }
            }
        }

        $(
            $crate::ask::asks!(@item [$(#[$attr])*] $Name $({ $($fields)* })?);

            impl From<$Name> for $All {
                fn from(ask: $Name) -> Self {
                    $All::$Name(ask)
                }
            }

            $crate::ask::asks!(@within $whole $All $Name);

            impl $crate::ask::Ask for $Name {
                type Request = $All;
                type Reply = $Reply;
                type Answer = $Answer;
            }
        )*
    };
    (@within [] $All:ident $Name:ident) => {};
    (@within [$Whole:ident] $All:ident $Name:ident) => {
        impl From<$Name> for $Whole {
            fn from(ask: $Name) -> Self {
                $All::$Name(ask).into()
            }
        }
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

/// Declares an enum of answers, one variant for each type: the [`Part`]s of a reply.
///
/// ```text
/// answers! {
///     /// What was found.
///     #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
///     pub enum Reply {
///         /// An inode.
///         Attr(Attr),
///     }
/// }
/// ```
macro_rules! answers {
    (
        $(#[$all_attr:meta])*
        pub enum $All:ident {
            $( $(#[$attr:meta])* $Name:ident($($Answer:tt)*) ),* $(,)?
        }
    ) => {
        $(#[$all_attr])*
        pub enum $All {
            $( $(#[$attr])* $Name($($Answer)*) ),*
        }

        impl $All {
            /// The names of the answers; the encoding numbers them from 0 in this order.
            pub const NAMES: &[&str] = &[$( stringify!($Name) ),*];
        }

        $(
            impl $crate::ask::Part<$All> for $($Answer)* {
                fn wrap(self) -> $All {
                    $All::$Name(self)
                }

                fn unwrap(reply: $All) -> Option<Self> {
                    match reply {
                        $All::$Name(answer) => Some(answer),
                        _ => None,
                    }
                }
            }
        )*
    };
}
pub(crate) use answers;

/// Gives the outcome of a request the type of its own answer.
///
/// # Errors
/// The refusal; [`Refusal::Malformed`] if the reply is to another kind of request: a session
/// that uses a sequence for two commands gets the first one's answer.
pub fn answer_to<A: Ask>(reply: Result<A::Reply, Refusal>) -> Result<A::Answer, Refusal> {
    A::Answer::unwrap(reply?).ok_or(Refusal::Malformed)
}
