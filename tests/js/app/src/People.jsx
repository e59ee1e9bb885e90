import { memo, useState } from "react";
import { useRoomCount, useRoomHeartbeat, useRoomMembers } from "reactor-presence/react";

export function People({ roomId, userId }) {
  const members = useRoomMembers(roomId);
  const count = useRoomCount(roomId);
  return (
    <section>
      <h2>
        Here now <span id="count">{count}</span>
      </h2>
      <ul id="people">
        {members.map((member) => (
          <Person key={member.userId} member={member} isMe={member.userId === userId} />
        ))}
      </ul>
    </section>
  );
}

const Person = memo(({ member, isMe }) => (
  <li data-user={member.userId} data-state={member.away ? "away" : "here"}>
    <span className="dot" />
    <span className="name">{member.username}</span>
    <span className="note">
      {[isMe && "you", member.away && "away", member.data?.typing && "typing", member.connections > 1 && `${member.connections} tabs`]
        .filter(Boolean)
        .join(" · ")}
    </span>
  </li>
));

/** A second component in the same room, which sets the data of its member. */
export function Typing({ roomId, userId }) {
  const [text, setText] = useState("");
  const { status } = useRoomHeartbeat(roomId, userId, undefined, { data: { typing: text !== "" } });
  return (
    <footer>
      <input aria-label="Message" placeholder="Write something" value={text} onChange={(event) => setText(event.target.value)} />
      <span id="status" data-status={status}>
        {status}
      </span>
    </footer>
  );
}
