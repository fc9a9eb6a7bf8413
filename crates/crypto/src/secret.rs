//! Values that must not leave by accident.
//!
//! A [`Secret`] has no `Debug`, `Display`, `Serialize`, `Clone` or `PartialEq`: a log line, an error, a response body
//! or a timing-dependent comparison that would carry it does not compile. It is wiped when dropped. What is left to
//! do wrong is visible in review, because it is spelt `expose`.

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A value that is wiped on drop and can only be read through [`Secret::expose`].
///
/// It cannot be formatted:
///
/// ```compile_fail,E0277
/// let secret = caracal_crypto::Secret::new(String::from("cs_example"));
/// format!("{secret:?}");
/// ```
pub struct Secret<T: Zeroize>(T);

/// Secret bytes: key material, opened envelopes.
pub type SecretBytes = Secret<Vec<u8>>;

/// Secret text: client secrets, tokens, provider credentials.
pub type SecretText = Secret<String>;

impl<T: Zeroize> Secret<T> {
    /// Takes ownership, so that no other copy outlives the wipe. A value that grew by reallocation before it came
    /// here may have left copies behind: build secrets in buffers of their final capacity.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Pass it on by reference, straight to what needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> ZeroizeOnDrop for Secret<T> {}

/// Whether both are equal, in a time that depends on their lengths only. An ordinary comparison stops at the first
/// difference and lets a caller who measures find a secret byte by byte.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// Whether a type has a trait, decided while compiling: an inherent constant wins over the trait's where its bound
/// holds. For tests that show which traits a type must never have.
#[cfg(test)]
macro_rules! has_trait {
    ($type:ty: $($bound:tt)+) => {{
        struct Probe<T: ?Sized>(std::marker::PhantomData<T>);
        #[allow(dead_code)]
        trait Absent {
            const PRESENT: bool = false;
        }
        impl<T: ?Sized> Absent for Probe<T> {}
        #[allow(dead_code)]
        impl<T: ?Sized + $($bound)+> Probe<T> {
            const PRESENT: bool = true;
        }
        <Probe<$type>>::PRESENT
    }};
}

#[cfg(test)]
mod tests {
    mod t05_secrets {
        use std::fmt::{Debug, Display};
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};

        use serde::Serialize;
        use zeroize::Zeroize;

        use crate::client_secret::{SecretVerifier, StoredHash};
        use crate::envelope::{Kek, KekRing};
        use crate::hmac::HmacKey;
        use crate::jws::{SigningKey, UnverifiedToken};
        use crate::{Secret, SecretBytes, SecretText, constant_time_eq};

        #[test]
        fn what_holds_a_secret_cannot_be_printed_or_copied() {
            // The probe can see a trait that is there, so its "no" means something.
            const { assert!(has_trait!(String: Debug) && has_trait!(String: Clone)) }

            macro_rules! assert_silent {
                ($($type:ty),+) => {$(
                    const {
                        assert!(!has_trait!($type: Debug), "Debug");
                        assert!(!has_trait!($type: Display), "Display");
                        assert!(!has_trait!($type: Serialize), "Serialize");
                        assert!(!has_trait!($type: Clone), "Clone");
                        assert!(!has_trait!($type: PartialEq), "PartialEq");
                    }
                )+};
            }
            assert_silent!(SecretText, SecretBytes, Secret<[u8; 32]>, HmacKey, Kek, KekRing, SigningKey);
            assert_silent!(StoredHash, SecretVerifier, UnverifiedToken<'static>);
        }

        #[test]
        fn a_dropped_secret_is_wiped() {
            struct Witness(Arc<AtomicBool>);
            impl Zeroize for Witness {
                fn zeroize(&mut self) {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
            let wiped = Arc::new(AtomicBool::new(false));
            let secret = Secret::new(Witness(Arc::clone(&wiped)));
            assert!(!wiped.load(Ordering::SeqCst));
            drop(secret);
            assert!(wiped.load(Ordering::SeqCst));
        }

        #[test]
        fn comparison_sees_every_byte_and_the_length() {
            assert!(constant_time_eq(b"", b""));
            assert!(constant_time_eq(b"abc", b"abc"));
            for other in [&b"abd"[..], b"bbc", b"ab", b"abcd", b""] {
                assert!(!constant_time_eq(b"abc", other), "{other:?}");
            }
        }
    }
}
