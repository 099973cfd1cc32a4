"""What SQLAlchemy's suite for dialects may ask of PostgreSQL 15 or later: its program for third parties.

The base class takes most features to be missing, and :data:`PRESENT` names those that are not. Others are asked for: of
the dialect or of the server. What is left out PostgreSQL has not: foreign keys that refer to one column twice, unique
indexes that are reflected as constraints, ``FETCH … PERCENT``, names of other databases' types.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

_PRESENT = """
create_table_as create_temp_table_as table_ddl_if_exists index_ddl_if_exists uuid_data_type
unique_constraints_reflect_as_index table_value_constructor non_updating_cascade deferrable_fks
repeated_column_foreign_keys boolean_col_expressions nullsordering intersect except_
window_functions window_range window_range_numeric window_range_non_numeric ctes ctes_with_update_delete
ctes_with_values ctes_on_dml tuple_in views cross_schema_fk_reflection implicit_default_schema
default_schema_name_switch reflects_pk_names reflect_tables_no_columns temp_table_comment_reflection
comment_reflection comment_reflection_full_unicode constraint_comment_reflection column_collation_reflection
schema_create_delete foreign_key_constraint_option_reflection_ondelete
fk_constraint_option_reflection_ondelete_restrict foreign_key_constraint_option_reflection_onupdate
fk_constraint_option_reflection_onupdate_restrict temp_table_names has_temp_table temporary_views
create_or_replace_view index_reflects_included_columns indexes_with_expressions reflect_indexes_with_expressions
inline_check_constraint_reflection check_constraint_reflection unicode_ddl datetime_interval datetime_timezone
time_timezone timestamp_microseconds datetime_historic date_historic autocommit isolation_level array_type json_type
precision_numerics_enotation_small precision_numerics_many_significant_digits server_defaults
expression_server_defaults aggregate_order_by precision_numerics_retains_significant_digits infinity_floats
float_or_double_precision_behaves_generically savepoints update_from delete_from mod_operator_as_percent_sign
order_by_label_with_expression reflect_table_options
supports_distinct_on identity_columns identity_columns_standard regexp_match
regexp_replace fetch_first fetch_ties fetch_no_order_by fetch_expression materialized_views supports_bitwise_or
supports_bitwise_and supports_bitwise_not supports_bitwise_xor supports_bitwise_shift
"""
PRESENT = re.findall(r"\w+", _PRESENT)
"""Features of every such server."""


class Requirements(SuiteRequirements):
    """Of a server that is asked."""

    @property
    def two_phase_transactions(self) -> Any:
        """A server may be told to have none."""

        def has_none(config: Any) -> bool:
            with config.db.connect() as connection:
                return int(connection.exec_driver_sql("SHOW max_prepared_transactions").scalar()) == 0

        return exclusions.skip_if(has_none, "the server has no prepared transactions")

    @property
    def computed_columns(self) -> Any:
        """The suite's are virtual; until 18, PostgreSQL has stored ones only."""
        return exclusions.only_if(
            lambda config: config.db.dialect.server_version_info >= (18,), "the server has no virtual columns"
        )

    def get_order_by_collation(self, config: Any) -> str:
        """One that every server has."""
        return "POSIX"


for _name in PRESENT:
    assert hasattr(Requirements, _name), _name
    setattr(Requirements, _name, property(lambda self: exclusions.open()))
