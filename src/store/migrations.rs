//! The migrations of the schema, embedded in the program. A released migration must not change:
//! each database stores its checksum.

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use std::sync::LazyLock;

/// Lists the migrations of one folder, by number and file.
macro_rules! migrations {
    ($folder:literal, $(($version:literal, $file:literal)),+ $(,)?) => {
        Migrator::with_migrations(vec![
            $(Migration::new(
                $version,
                // The description is the file name without its number.
                $file.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_').replace('_', " ").into(),
                MigrationType::Simple,
                include_str!(concat!("migrations/", $folder, "/", $file, ".sql"))
                    .into_sql_str(),
                false,
            )),+
        ])
    };
}

pub static SQLITE: LazyLock<Migrator> = LazyLock::new(|| {
    migrations!(
        "sqlite",
        (1, "0001_initial"),
        (2, "0002_acknowledgements"),
        (3, "0003_message_kinds"),
        (4, "0004_lateness_failures"),
        (5, "0005_pages"),
        (6, "0006_rates"),
        (7, "0007_inventory_parts"),
        (8, "0008_sessions"),
        (9, "0009_acknowledged_projects"),
        (10, "0010_cancelled"),
        (11, "0011_punctuality"),
        (12, "0012_drills"),
        (13, "0013_schedules"),
    )
});

pub static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = migrations!(
        "postgres",
        (1, "0001_initial"),
        (2, "0002_inventory_parts"),
        (3, "0003_sessions"),
        (4, "0004_acknowledged_projects"),
        (5, "0005_cancelled"),
        (6, "0006_punctuality"),
        (7, "0007_drills"),
        (8, "0008_schedules"),
    );
    // A newer version may have added migrations.
    migrator.set_ignore_missing(true);
    migrator
});
