//! The schema's migrations, in the program itself. A migration that was released is never changed: each database keeps
//! its checksum.

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use std::sync::LazyLock;

/// Lists the migrations of one folder, by number and name.
macro_rules! migrations {
    ($folder:literal, $(($version:literal, $name:literal)),+ $(,)?) => {
        Migrator::with_migrations(vec![
            $(Migration::new(
                $version,
                $name.replace('_', " ").into(),
                MigrationType::Simple,
                include_str!(concat!("migrations/", $folder, "/000", $version, "_", $name, ".sql"))
                    .into_sql_str(),
                false,
            )),+
        ])
    };
}

pub static SQLITE: LazyLock<Migrator> = LazyLock::new(|| {
    migrations!(
        "sqlite",
        (1, "initial"),
        (2, "acknowledgements"),
        (3, "message_kinds"),
        (4, "lateness_failures"),
        (5, "pages"),
        (6, "rates"),
        (7, "inventory_parts"),
        (8, "sessions"),
        (9, "acknowledged_projects"),
    )
});

pub static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = migrations!(
        "postgres",
        (1, "initial"),
        (2, "inventory_parts"),
        (3, "sessions"),
        (4, "acknowledged_projects"),
    );
    // A newer version may have added some.
    migrator.set_ignore_missing(true);
    migrator
});
