//! One conversation with PAM, in the process that ends with it.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;

use nonstick::items::{Items, ItemsMut};
use nonstick::{
    AuthnFlags, ConversationAdapter, ErrorCode, PamShared, Result, Transaction, TransactionBuilder,
};

use crate::PAM_SERVICE;

/// A null password never opens anything, whatever the site's modules think of it.
const NO_EMPTY_PASSWORD: AuthnFlags = AuthnFlags::DISALLOW_NULL_AUTHTOK;

/// The password is right and the account is good; gives the account's name, which a module may have spelt anew.
pub(crate) fn sign_in(name: &str, password: &str, from: IpAddr) -> Result<OsString> {
    let answers = OnePassword(Some(password.to_owned()));
    let mut transaction = TransactionBuilder::new_with_service(PAM_SERVICE)
        .username(name)
        .build(answers.into_conversation())?;
    transaction.items_mut().set_remote_host(Some(OsStr::new(&from.to_string())))?;
    transaction.authenticate(NO_EMPTY_PASSWORD)?;
    transaction.account_management(NO_EMPTY_PASSWORD)?;
    let spelt = transaction.items().user()?;
    spelt.ok_or(ErrorCode::UserUnknown)
}

/// The account is good: not expired, and allowed here.
pub(crate) fn account_is_good(name: &str) -> Result<()> {
    let mut transaction = TransactionBuilder::new_with_service(PAM_SERVICE)
        .username(name)
        .build(OnePassword(None).into_conversation())?;
    transaction.account_management(NO_EMPTY_PASSWORD)
}

/// Answers one kind of question: what the password is. A second factor that is typed needs a dialogue, which a form of
/// two fields is not.
struct OnePassword(Option<String>);

impl ConversationAdapter for OnePassword {
    fn prompt(&self, _: impl AsRef<OsStr>) -> Result<OsString> {
        Err(ErrorCode::ConversationError)
    }

    fn masked_prompt(&self, _: impl AsRef<OsStr>) -> Result<OsString> {
        self.0.as_ref().map(OsString::from).ok_or(ErrorCode::ConversationError)
    }

    fn error_msg(&self, _: impl AsRef<OsStr>) {}

    fn info_msg(&self, _: impl AsRef<OsStr>) {}
}
