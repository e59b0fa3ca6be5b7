// How the scripts find what people look at: by the words that are read to them.

export const VM = "testVM01";

/** The VM's line in the list; not that of its copy in a test failover. */
export const row = (page) => page.getByRole("row", { name: new RegExp(`^${VM} (?!- Test)`) });
/** What can be done, at the right. */
export const action = (page, name) =>
  page.getByRole("complementary", { name: "Actions" }).getByRole("button", { name, exact: true });
/** The window that is open. */
export const dialog = (page) => page.getByRole("dialog");
/** Presses a button of that window. */
export const press = (page, name) => dialog(page).getByRole("button", { name, exact: true }).click();
/** The VM's line in the list says all of this, sooner or later, without a reload. */
export const says = async (page, ...words) => {
  for (const word of words) await row(page).getByText(word, { exact: true }).waitFor();
};
/** Chooses the VM in the list of a host. */
export const open = async (page, host) => {
  await page.getByRole("navigation").getByRole("link", { name: host }).click();
  await row(page).click();
};
