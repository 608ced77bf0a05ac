BEGIN TRANSACTION;
CREATE TABLE result (
    key     BLOB    NOT NULL,
    number  INTEGER NOT NULL,
    seconds REAL    NOT NULL,
    payload BLOB    NOT NULL,
    PRIMARY KEY (key, number)
);
INSERT INTO "result" VALUES(X'6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B',0,0.5,X'7A65726F');
INSERT INTO "result" VALUES(X'6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B',7,0.25,X'736576656E');
CREATE TABLE run (
    number     INTEGER PRIMARY KEY,
    command    TEXT    NOT NULL,
    options    TEXT    NOT NULL,
    versions   TEXT    NOT NULL,
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    begun      TEXT    NOT NULL,
    ended      TEXT,
    state      TEXT    NOT NULL,
    verdict    TEXT,
    n_measured INTEGER NOT NULL DEFAULT 0,
    n_recorded INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "run" VALUES(1,'calibrate net.prototxt','{"iterations": 18}','{"distcalib": "0"}','host',1,'2026-01-01T00:00:00+00:00','2026-01-01T00:01:00+00:00','done','Tolerance met',2,0);
COMMIT;
PRAGMA application_id = 1684228684;
PRAGMA user_version = 1;
