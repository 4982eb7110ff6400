-- one account an address, whatever the database's locale takes for the small letters
-- depends: 0002_revoked_tokens

-- migrate: apply
-- lower() follows the locale: under a Turkish one, of ADA@I.EXAMPLE and ada@i.example it makes two. Addresses are ASCII, and
-- compared as such. The index of before stays for servers of before; it keeps nothing apart that this one does not.
-- 0, but for further users who came to have one address in that way: nobody decides here which of them it is, so they keep
-- it, sign in with it written as they wrote it, and count as taken.
ALTER TABLE users ADD COLUMN email_place INT NOT NULL DEFAULT 0;
UPDATE users u SET email_place = several.place
FROM (SELECT id, row_number() OVER (PARTITION BY lower(email COLLATE "C") ORDER BY id) - 1 AS place
      FROM users WHERE email IS NOT NULL) AS several
WHERE u.id = several.id AND several.place > 0;
CREATE UNIQUE INDEX users_address ON users (lower(email COLLATE "C"), email_place);

-- migrate: rollback
DROP INDEX users_address;
ALTER TABLE users DROP COLUMN email_place;
