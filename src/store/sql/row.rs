//! Rows of results.

use sqlx::{
    ColumnIndex, Decode, FromRow, Postgres, Row as _, Sqlite, Type, postgres::PgRow,
    sqlite::SqliteRow,
};

use super::Result;

/// A type of a column.
pub trait Kept<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}
impl<'r, T> Kept<'r> for T where
    T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

/// A type of a column that borrows nothing from the row.
pub trait Owned: for<'r> Kept<'r> {}
impl<T> Owned for T where T: for<'r> Kept<'r> {}

/// A tuple of columns.
pub trait Tuple: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> {}
impl<T> Tuple for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> {}

pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) fn tuple<T: Tuple>(&self) -> Result<T> {
        match self {
            Row::Sqlite(row) => T::from_row(row),
            Row::Postgres(row) => T::from_row(row),
        }
    }

    /// An integer, converted from 64 bits.
    pub fn number<T: TryFrom<i64, Error: std::error::Error + Send + Sync + 'static>>(
        &self,
        column: &str,
    ) -> Result<T> {
        let number: i64 = self.try_get(column)?;
        number.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }

    pub fn try_get<'r, T: Kept<'r>>(
        &'r self,
        column: impl ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    ) -> Result<T> {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
    }
}
