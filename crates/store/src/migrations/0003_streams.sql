-- Topics with groups, where no Redis keeps them. A `position` is an entry's time in milliseconds, shifted by 20 bits, and a
-- number within that millisecond: the same two parts as an entry's id on the wire.

-- The newest position that was given out, so that none is given out twice, whatever was trimmed and however clocks step.
CREATE TABLE stream_topics (
  topic TEXT NOT NULL PRIMARY KEY,
  position {int} NOT NULL
) {table};

CREATE TABLE stream_entries (
  topic TEXT NOT NULL,
  position {int} NOT NULL,
  fields TEXT NOT NULL,
  PRIMARY KEY (topic, position)
) {table};

-- What was handed to a group up to `position`.
CREATE TABLE stream_groups (
  topic TEXT NOT NULL,
  name TEXT NOT NULL,
  position {int} NOT NULL,
  PRIMARY KEY (topic, name)
) {table};

-- Handed out and not acknowledged.
CREATE TABLE stream_pending (
  topic TEXT NOT NULL,
  group_name TEXT NOT NULL,
  position {int} NOT NULL,
  consumer TEXT NOT NULL,
  delivered_at {int} NOT NULL,
  deliveries {int} NOT NULL,
  PRIMARY KEY (topic, group_name, position)
) {table};

-- Messages that a group has handled, by which it knows a repetition.
CREATE TABLE stream_handled (
  topic TEXT NOT NULL,
  group_name TEXT NOT NULL,
  identity TEXT NOT NULL,
  handled_at {int} NOT NULL,
  PRIMARY KEY (topic, group_name, identity)
) {table};
CREATE INDEX stream_handled_age ON stream_handled (topic, group_name, handled_at);
